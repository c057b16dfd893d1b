"""What is asked of a server, and what came of it.

Each load is a coroutine that posts turns to ports and gives what their clients were told.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import cycle
from typing import Any

from bench.speed.servers import Server
from bench.speed.streams import Told, post
from bench.speed.usage import measured

Ports = Sequence[int]
Load = Callable[[Ports, str], Awaitable[list[Told]]]
"""Ports and a prefix for session ids."""

PARAMS = {"tokens": 100, "ttft_ms": 20, "itl_ms": 20}
# Medians and spreads (sigma of the logarithm) of a conversation's shape: tokens of an answer, seconds
# between its end and the next question, turns. People read some 4 words a second and then type.
ANSWER, THINKING, TURNS = (150, 0.8), (5.0, 1.0), (4, 0.6)
LONGEST_ANSWER = 1500


async def idle(ports: Ports, name: str, turns: int = 40) -> list[Told]:
    """One turn after the other."""
    params = PARAMS | {"tokens": 10}
    return [
        await post(port, f"{name}-{n}", params) for n, port in zip(range(turns), cycle(ports), strict=False)
    ]


async def burst(ports: Ports, name: str, sessions: int, itl_ms: float = 20) -> list[Told]:
    """All at once."""
    params = PARAMS | {"itl_ms": itl_ms}
    posts = (
        post(port, f"{name}-{n}", params) for n, port in zip(range(sessions), cycle(ports), strict=False)
    )
    return await asyncio.gather(*posts)


async def poisson(ports: Ports, name: str, rate: float = 50, seconds: float = 10) -> list[Told]:
    """Turns that come on their own, so many a second."""
    rng = random.Random(f"poisson {rate}")  # noqa: S311 - the same turns each time
    tasks: list[asyncio.Task[Told]] = []
    due = time.monotonic()
    end = due + seconds
    while (due := due + rng.expovariate(rate)) < end:
        await asyncio.sleep(max(due - time.monotonic(), 0))
        tasks.append(
            asyncio.create_task(post(ports[len(tasks) % len(ports)], f"{name}-{len(tasks)}", PARAMS))
        )
    return await asyncio.gather(*tasks)


async def conversations(ports: Ports, name: str, sessions: int = 150, seconds: float = 30) -> list[Told]:
    """People who ask, read, think and ask again; lengths and pauses are log-normal."""
    end = time.monotonic() + seconds

    async def one(number: int) -> list[Told]:
        rng = random.Random(f"conversation {number}")  # noqa: S311 - same
        told: list[Told] = []
        await asyncio.sleep(rng.uniform(0, seconds / 3))
        for _ in range(max(round(_log_normal(rng, *TURNS)), 1)):
            if time.monotonic() > end:
                break
            tokens = min(max(round(_log_normal(rng, *ANSWER)), 1), LONGEST_ANSWER)
            params = PARAMS | {"tokens": tokens}
            told.append(await post(ports[number % len(ports)], f"{name}-{number}", params))
            await asyncio.sleep(min(_log_normal(rng, *THINKING), seconds))
        return told

    found = await asyncio.gather(*(one(number) for number in range(sessions)))
    return [told for each in found for told in each]


def _log_normal(rng: random.Random, median: float, sigma: float) -> float:
    return median * rng.lognormvariate(0, sigma)


SESSIONS = (1, 10, 100, 300, 1000)
LOADS: dict[str, Load] = {
    "idle": idle,
    **{f"{n} at once": partial(burst, sessions=n) for n in SESSIONS},
    "2000 at once, 10 tok/s": partial(burst, sessions=2000, itl_ms=100),
    "50 a second": poisson,
    "conversations": conversations,
}


async def run(load: Load, server: Server, name: str) -> dict[str, Any]:
    """The figures of one load: ms, tokens a second, microseconds of CPU a token, bytes."""
    async with measured(server.pids) as usage:
        told = await load(server.ports, name)
    start = min(each.started for each in told)
    seconds = max(each.started + each.ended for each in told) - start
    tokens = sum(each.tokens for each in told)
    accepted = max(each.started + each.accepted for each in told) - start
    return {
        "turns": len(told),
        "errors": sum(not each.whole for each in told),
        "seconds": seconds,
        "ttft_ms": percentiles([each.ttft for each in told]),
        "gap_ms": percentiles([gap for each in told for gap in each.gaps]),
        "tokens_per_s": tokens / seconds,
        "accepted_per_s": len(told) / accepted,
        "cpu_us_per_token": {role: cpu / tokens * 1e6 for role, cpu in usage.cpu.items()},
        "rss_per_turn": {role: size / len(told) for role, size in usage.rss.items()},
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p99 and the most, in ms."""
    if not seconds[1:]:  # too few to have any
        seconds = (seconds or [0.0]) * 2
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49] * 1000, "p99": cuts[98] * 1000, "max": max(seconds) * 1000}
