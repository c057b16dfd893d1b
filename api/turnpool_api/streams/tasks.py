"""The end of background tasks."""

import asyncio
from collections.abc import Iterable
from typing import Any

# Seconds until a task that still runs is cancelled again.
AGAIN = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; what they raised is not told.

    A cancellation can get lost: before Python 3.12 `asyncio.wait_for`, by which redis-py sends, forgets
    one that comes as it returns (https://github.com/python/cpython/issues/86296). So it is repeated.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN)
