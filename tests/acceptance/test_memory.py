"""What a process of the API holds in memory for its clients."""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import orjson
import pytest

from tests.acceptance.processes import Pool, Process
from tests.api.worker import claim
from tests.conftest import wait_until
from turnpool import keys
from turnpool.models import NewTurn

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells"),
]

READERS = 300


def peak(process: Process) -> int:
    """The most memory that the process has had, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def busy(process: Process) -> int:
    """Ticks that the process has worked."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def settled(process: Process) -> None:
    """Wait until the process has nothing left to do."""
    ticks = [-9]

    async def idle() -> bool:
        await asyncio.sleep(1)
        ticks.append(busy(process))
        return ticks[-1] - ticks[-2] <= 3

    await wait_until(idle, 60)


def new_turn(session_id: str) -> NewTurn:
    """A turn to submit."""
    message = {"role": "user", "content": "hi"}
    return NewTurn(session_id, "default", "turns", "simulated", [message], 600, {}, {})


@pytest.mark.parametrize("size", [200, 5_000, 50_000])
async def test_slow_readers_cost_little_together(pool: Pool, size: int) -> None:
    """Hundreds of sockets that do not read, of logs of megabytes: some 60 KB and an event each."""
    for session in "abcde":
        await pool.store.submit(new_turn(session))
        run = await claim(pool.store)
        for _ in range(20):
            await run.say(*["x" * size] * min(50, 500_000 // size))
    api = await pool.api()
    before = peak(api)
    with ExitStack() as stack:
        for i in range(READERS):
            reader = stack.enter_context(socket.create_connection(("127.0.0.1", api.port)))
            path = f"/v1/turns/{'abcde'[i % 5]}.1/events"
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await settled(api)
        # The budget of all streams, and what each one costs beyond it.
        assert peak(api) - before < 30 + READERS * (60_000 + size) // 1_000_000


async def test_eight_large_answers_at_once_are_bounded(pool: Pool) -> None:
    """Of a session with 90 MB of messages, a list with 40 MB of inputs, and a log of 40 MB."""
    store = pool.store
    for n in range(40):
        turn = new_turn("s")
        await store.submit(
            NewTurn(**{**{f: getattr(turn, f) for f in turn.__slots__}, "metadata": {"x": "x" * 10**6}})
        )
        if n == 0:
            run = await claim(store)
    for _ in range(40):
        await run.say("x" * 10**6)
    messages = keys.messages(store.prefix, "default:s")
    large = orjson.dumps({"role": "user", "content": "x" * 900_000})
    for _ in range(100):
        await store.redis.rpush(messages, large)
    await store.redis.expire(messages, 100)
    api = await pool.api()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", timeout=60) as client:
        await client.get("/v1/pool")
        before = peak(api)
        for path in (
            "/v1/sessions/s?limit=1000",
            "/v1/sessions/s/turns?limit=40&include=metadata",
            "/v1/turns/s.1/events?follow=false&limit=10000&after=2",
        ):
            answers = await asyncio.gather(*(client.get(path) for _ in range(8)))
            assert {answer.status_code for answer in answers} == {200}
            assert all(500_000 < len(answer.content) < 1_200_000 for answer in answers)
    assert peak(api) - before < 100
