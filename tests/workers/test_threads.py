"""Threads for blocking code (`turnpool_workers/threads.py`)."""

import asyncio
import threading
import time

import pytest

from tests.conftest import wait_until
from turnpool_workers.threads import ATTEMPT, Threads

pytestmark = pytest.mark.anyio


async def test_as_many_calls_run_at_once_as_there_are_threads() -> None:
    """Forty blocking calls need forty threads, whatever the CPUs; asyncio alone has a few."""
    asyncio.get_running_loop().set_default_executor(threads := Threads(40))
    together = threading.Barrier(40)
    await asyncio.wait_for(asyncio.gather(*(asyncio.to_thread(together.wait) for _ in range(40))), 10)
    assert threads.busy == threads.abandoned == 0


async def test_threads_are_made_when_they_are_needed() -> None:
    """A worker whose agents never block has none."""
    asyncio.get_running_loop().set_default_executor(Threads(1000))
    for _ in range(5):
        await asyncio.to_thread(time.sleep, 0)
    names = [thread.name for thread in threading.enumerate()]
    assert sum(name.startswith("turnpool-thread") for name in names) <= 2


async def test_a_thread_that_outlives_its_attempt_is_counted_until_it_ends() -> None:
    """Cancelling does not stop it; those of attempts that run are not counted, nor those that waited."""
    asyncio.get_running_loop().set_default_executor(threads := Threads(3))
    go = threading.Event()

    async def attempt(name: str, calls: int) -> None:
        ATTEMPT.set(name)
        await asyncio.gather(*(asyncio.to_thread(go.wait, 10) for _ in range(calls)))

    tasks = [asyncio.create_task(attempt("ends", 2)), asyncio.create_task(attempt("runs", 1))]

    async def busy() -> bool:
        return threads.busy == 3

    await wait_until(busy)
    tasks[0].cancel()
    threads.abandon("ends")
    assert threads.abandoned == 2
    go.set()

    async def free() -> bool:
        return threads.busy == 0

    await wait_until(free)
    assert threads.abandoned == 0
    await asyncio.gather(*tasks, return_exceptions=True)
