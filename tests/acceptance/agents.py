"""Agents of the tests' own."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from urllib.request import Request, urlopen

from turnpool import Event, Turn, continues


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


@continues()
async def counting(turn: Turn) -> AsyncIterator[str | Event]:
    """Two steps with side effects, each followed by a word; attempt n stands still after step n."""
    for number, (name, word) in enumerate((("buy", "bought "), ("pay", "paid ")), 1):
        await turn.step(name, _post, f"{turn.params['url']}/{turn.id}/{name}")
        if word not in turn.partial:
            yield word
        if number == turn.attempt:
            await asyncio.Event().wait()
    yield "done"


def _post(url: str) -> int:
    """A side effect."""
    with urlopen(Request(url, method="POST"), timeout=10) as answer:  # noqa: S310 - the test's own address
        return int(answer.status)
