"""Agents of the tests' own."""

import asyncio
import os
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


async def deadly(turn: Turn) -> AsyncIterator[str | Event]:
    """Ends the process in a way that nothing catches, after what the post says."""
    if says := turn.params.get("says"):
        yield str(says)
    await asyncio.sleep(float(turn.params.get("seconds", 0)))
    os._exit(1)


async def hanging(turn: Turn) -> AsyncIterator[str | Event]:
    """Stops the loop."""
    yield f"turn {turn.id} "
    time.sleep(1e6)  # noqa: ASYNC251 - that is what it is for


async def hanging_step(turn: Turn) -> AsyncIterator[str | Event]:
    """Stops the loop from a task that is not the agent's own."""

    async def stop() -> None:
        time.sleep(1e6)  # noqa: ASYNC251 - that is what it is for

    await turn.step("stop", stop)
    yield "done"


async def silent(turn: Turn) -> AsyncIterator[str | Event]:
    """Says nothing for long, as a model that thinks, then a word."""
    await asyncio.sleep(float(turn.params["seconds"]))
    yield "done"


async def streaming(turn: Turn) -> AsyncIterator[str | Event]:
    """Says a word each half second, from the beginning in each attempt."""
    for n in range(int(float(turn.params["seconds"]) * 2)):
        await asyncio.sleep(0.5)
        yield f"w{n} "


async def threaded(turn: Turn) -> AsyncIterator[str | Event]:
    """Blocks a thread."""
    await asyncio.to_thread(time.sleep, float(turn.params["seconds"]))
    yield "done"


async def stepping(turn: Turn) -> AsyncIterator[str | Event]:
    """Blocks a thread in a step that is a plain function."""
    await turn.step("wait", time.sleep, float(turn.params["seconds"]))
    yield "done"


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
