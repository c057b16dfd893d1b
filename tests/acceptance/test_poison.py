"""Turns that kill their workers, and those beside them, on real processes."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.acceptance.processes import Pool, Process
from tests.acceptance.sse import request
from tests.conftest import wait_until
from turnpool.models import TurnRecord

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

NAMES = ("silent", "streaming", "deadly")
AGENTS = ",".join(f"{name}=tests.acceptance.agents:{name}" for name in NAMES)
HEALTHY = 40
# A third of the default lease, so that all goes quicker by as much.
LEASE = "1"


@asynccontextmanager
async def kept_running(pool: Pool, workers: int, lease: str) -> AsyncIterator[list[Process]]:
    """Workers that are started again whenever they end, as any supervisor does; gives all so far."""
    started = []

    async def keep() -> None:
        while True:
            started.append(await pool.worker(wait=False, AGENTS=AGENTS, LEASE_SECONDS=lease))
            await started[-1].exit(3600)

    keepers = [asyncio.create_task(keep()) for _ in range(workers)]
    yield started
    for keeper in keepers:
        keeper.cancel()
        with suppress(asyncio.CancelledError):
            await keeper


async def post(port: int, session: str, agent: str, **params: Any) -> None:
    """Post a turn and do not follow it."""
    body = {"input": "hello", "agent": agent, "params": params, "deadline_seconds": 600}
    answer = await request(port, "POST", f"/v1/sessions/{session}/turns", body)
    assert answer.status == 202, await answer.body()
    await answer.body()


async def end(pool: Pool, session: str, seconds: float) -> TurnRecord:
    """The turn of the session, once it has ended."""

    async def ended() -> bool:
        return (await pool.store.turn(f"{session}.1", "default")).status.terminal

    await wait_until(ended, seconds)
    return await pool.store.turn(f"{session}.1", "default")


async def run_beside_poison(pool: Pool, workers: int, agent: str, seconds: float, lease: str) -> int:
    """Post healthy turns with a poison turn among them; gives how many workers that one has ended."""
    api = await pool.api(AGENTS=AGENTS)
    for n in range(HEALTHY):
        if n == HEALTHY // 2:
            await post(api.port, "poison", "deadly")
        await post(api.port, f"healthy{n}", agent, seconds=seconds)
    begun = time.monotonic()
    async with kept_running(pool, workers, lease) as started:
        poison = await end(pool, "poison", 150)
        took, ended = time.monotonic() - begun, len(started) - workers
        turns = [await end(pool, f"healthy{n}", 150) for n in range(HEALTHY)]
    assert [turn.error for turn in turns] == [None] * HEALTHY
    assert poison.error
    assert poison.error["code"] == "worker_lost"
    print(f"{agent}, {workers} workers: the poison turn failed after {took:.1f} s, {ended} workers ended")  # noqa: T201
    return ended


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("agent", ["silent", "streaming"])
async def test_a_poison_turn_fails_none_but_itself(pool: Pool, workers: int, agent: str) -> None:
    """Forty healthy turns beside one that ends its process, on workers that are restarted.

    How long that takes is how long workers take to start; how many it costs is the promise.
    """
    assert await run_beside_poison(pool, workers, agent, 3, LEASE) <= 7


async def test_a_turn_that_gets_on_survives_ten_kills(pool: Pool) -> None:
    """Each attempt says more than stood before it, so no loss counts."""
    api = await pool.api(AGENTS="simulated=turnpool_workers.agents.simulated:agent")
    await post(api.port, "long", "simulated", tokens=2000, itl_ms=20)
    seq = 0
    for _ in range(10):
        worker = await pool.worker(LEASE_SECONDS=LEASE)

        async def gets_on(seq: int = seq) -> bool:
            turn = await pool.store.turn("long.1", "default")
            return str(turn.status) == "in_progress" and turn.seq > seq + 5

        await wait_until(gets_on, 30)
        worker.signal(signal.SIGKILL)
        await worker.exit()
        seq = (await pool.store.turn("long.1", "default")).seq
    await pool.worker(LEASE_SECONDS=LEASE)
    turn = await end(pool, "long", 60)
    assert (turn.error, turn.losses) == (None, 10)
    assert turn.output == "".join(f"w{n} " for n in range(2000))
