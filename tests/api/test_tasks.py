"""Background tasks end."""

import asyncio

import pytest

from turnpool_api.streams.tasks import end

pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_a_task_that_forgets_a_cancellation_is_cancelled_again() -> None:
    """As `asyncio.wait_for` makes one forget it; others, and those that have ended, are no trouble."""
    told = 0

    async def forgetful() -> None:
        nonlocal told
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1
                if told > 1:
                    raise

    async def failing() -> None:
        raise ValueError

    tasks = [asyncio.create_task(forgetful()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    await asyncio.wait_for(end(tasks), 5)
    assert told == 2
    assert all(task.done() for task in tasks)
