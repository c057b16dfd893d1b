"""Agents of the tests' own."""

import time
from collections.abc import AsyncIterator

from turnpool import Event, Turn


async def blocking(turn: Turn) -> AsyncIterator[str | Event]:
    """Blocks the worker's loop, as a careless agent does, for two leases."""
    yield "before "
    time.sleep(float(turn.params["seconds"]))  # noqa: ASYNC251 - that is what it is for
    yield "after"
