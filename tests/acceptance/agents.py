"""Agents of the tests' own."""

import sys
import time
from collections.abc import AsyncIterator

from turnpool import Event, Turn


async def blocking(turn: Turn) -> AsyncIterator[str | Event]:
    """Blocks the worker's loop, as a careless agent does, for two leases."""
    yield "before "
    time.sleep(float(turn.params["seconds"]))  # noqa: ASYNC251 - that is what it is for
    yield "after"


async def exiting(turn: Turn) -> AsyncIterator[str | Event]:
    """Ends the process, as a script does that was made an agent."""
    yield f"turn {turn.id} "
    sys.exit(3)


async def stuck(turn: Turn) -> AsyncIterator[str | Event]:
    """Blocks the loop for good."""
    yield f"turn {turn.id} "
    while True:
        time.sleep(1)  # noqa: ASYNC251 - that is what it is for
