"""What is asked of a server: each load is a coroutine that posts turns and follows them to their ends."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial

from bench.speed.servers import Server
from bench.speed.streams import Params, Stream, connect, post, post_on

Load = Callable[[Server, str], Awaitable[list[Stream]]]
"""The server and a prefix for session ids."""

PARAMS: Params = {"tokens": 100, "ttft_ms": 20, "itl_ms": 20}
# Medians and spreads (sigma of the logarithm) of a conversation's shape: tokens of an answer, seconds
# between its end and the next question, turns. People read some 4 words a second and then type.
ANSWER, THINKING, TURNS = (150, 0.8), (5.0, 1.0), (4, 0.6)
MAX_ANSWER = 1500


async def idle(server: Server, name: str, turns: int = 40) -> list[Stream]:
    """One short turn after the other."""
    return [await _post(server, name, number, tokens=10) for number in range(turns)]


async def burst(server: Server, name: str, sessions: int, **params: float) -> list[Stream]:
    """All at once."""
    return await asyncio.gather(*(_post(server, name, number, **params) for number in range(sessions)))


async def poisson(server: Server, name: str, rate: float = 50, seconds: float = 10) -> list[Stream]:
    """Turns that come on their own, so many a second."""
    rng = random.Random(f"poisson {rate}")  # noqa: S311 - the same turns each time
    tasks: list[asyncio.Task[Stream]] = []
    due = time.monotonic()
    end = due + seconds
    while (due := due + rng.expovariate(rate)) < end:
        await asyncio.sleep(max(due - time.monotonic(), 0))
        tasks.append(asyncio.create_task(_post(server, name, len(tasks))))
    return await asyncio.gather(*tasks)


def arrivals(sessions: int, seconds: float) -> list[float]:
    """When each comes: a Poisson process of which the number is known (seconds from the start, in order)."""
    rng = random.Random(f"arrivals {sessions}")  # noqa: S311 - the same times in every run
    return sorted(rng.uniform(0, seconds) for _ in range(sessions))


async def steady(server: Server, name: str, sessions: int, seconds: float, **params: float) -> list[Stream]:
    """Sessions that go on: each asks again as soon as it has its answer, until so many seconds have passed.

    All are connected before the first asks, and stay so. They begin over the length of an answer, so that
    as many are at each point of one. One that is refused ends.
    """
    asked = PARAMS | params
    connections = [await connect(server.port(number)) for number in range(sessions)]
    start = time.monotonic()

    async def one(number: int, due: float) -> list[Stream]:
        streams: list[Stream] = []
        await asyncio.sleep(max(start + due - time.monotonic(), 0))
        connection = connections[number]
        while time.monotonic() < start + seconds and not connection.is_closing():
            streams.append(await post_on(connection, f"{name}-{number}", asked, server.dialect))
            if streams[-1].refused:
                break
        connection.close()
        return streams

    length = asked["tokens"] * asked["itl_ms"] / 1000
    due = arrivals(sessions, length)
    found = await asyncio.gather(*(one(number, each) for number, each in enumerate(due)))
    return [stream for each in found for stream in each]


async def conversations(server: Server, name: str, sessions: int = 150, seconds: float = 30) -> list[Stream]:
    """People who ask, read, think and ask again; none asks any more after so many seconds."""
    end = time.monotonic() + seconds

    async def one(number: int) -> list[Stream]:
        rng = random.Random(f"conversation {number}")  # noqa: S311 - same
        streams: list[Stream] = []
        await asyncio.sleep(rng.uniform(0, seconds / 3))
        for tokens, pause in shape(rng):
            if time.monotonic() > end:
                break
            streams.append(await _post(server, name, number, tokens=tokens))
            await asyncio.sleep(min(pause, max(end - time.monotonic(), 0)))
        return streams

    found = await asyncio.gather(*(one(number) for number in range(sessions)))
    return [stream for each in found for stream in each]


def shape(rng: random.Random) -> list[tuple[int, float]]:
    """A conversation: for each turn the tokens of its answer, and the seconds until the next."""
    return [
        (min(max(round(_log_normal(rng, *ANSWER)), 1), MAX_ANSWER), _log_normal(rng, *THINKING))
        for _ in range(max(round(_log_normal(rng, *TURNS)), 1))
    ]


def _log_normal(rng: random.Random, median: float, sigma: float) -> float:
    return median * rng.lognormvariate(0, sigma)


async def _post(server: Server, name: str, number: int, **params: float) -> Stream:
    return await post(server.port(number), f"{name}-{number}", PARAMS | params, server.dialect)


# By how much they have at once: memory once taken is seldom given back, and would count for the next.
LOADS: dict[str, Load] = {
    "idle": idle,
    "1 at once": partial(burst, sessions=1),
    "10 at once": partial(burst, sessions=10),
    "50 a second": poisson,
    "100 at once": partial(burst, sessions=100),
    "conversations": conversations,
    "300 at once": partial(burst, sessions=300),
    "1000 at once": partial(burst, sessions=1000),
    "1000 for 15 s": partial(steady, sessions=1000, seconds=15),
    "1000 at once, 500 tokens": partial(burst, sessions=1000, tokens=500),
    "2000 for 30 s, 10 tok/s": partial(steady, sessions=2000, seconds=30, itl_ms=100),
    "2000 at once, 10 tok/s": partial(burst, sessions=2000, itl_ms=100),
}
