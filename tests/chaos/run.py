"""One run: a pool, its load and its faults, then the checks."""

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.chaos import inside, times
from tests.chaos.audit import Audit
from tests.chaos.book import Book
from tests.chaos.chaos import Chaos
from tests.chaos.client import Client, Known
from tests.chaos.faults import schedule
from tests.chaos.link import Link
from tests.chaos.plans import USERS, moves
from tests.chaos.pool import Fleet
from tests.chaos.report import summary
from tests.chaos.valkey import Valkey
from tests.chaos.watcher import Watcher

# Seconds that turns under way get after a promise was broken.
AFTERMATH = 5


async def run(seed: int, seconds: float) -> dict[str, Any]:
    """Run chaos for so long; gives what was found. Logs of a run that broke a promise are kept."""
    folder = Path(tempfile.mkdtemp(prefix=f"turnpool-chaos-{seed}-"))
    book = Book()
    async with _pool(folder, seed, book) as (fleet, valkey, link):
        known = Known()
        await _load(fleet, Chaos(fleet, valkey, link, book), seed, seconds, known, book)
        await fleet.settled()
        client = Client(fleet, book, known, random.Random(seed))  # noqa: S311 - reads only
        audit = Audit(client, known, book)
        await audit.run()
        times.measure(audit.readings, book)
        alive = {slot.process.pid for slot in fleet.workers if slot.process}
        await inside.check(valkey.url, alive, book)
        for session in sorted(known.sessions):
            await client.call("DELETE", f"/v1/sessions/{session}")
        await inside.check_deleted(valkey.url, book)
        await fleet.close()
    found = summary(book, seed, seconds)
    if book.broken:
        found["logs"] = str(folder)
    else:
        shutil.rmtree(folder)
    return found


@asynccontextmanager
async def _pool(folder: Path, seed: int, book: Book) -> AsyncIterator[tuple[Fleet, Valkey, Link]]:
    """Processes that work, and are gone in the end."""
    valkey = Valkey(folder)
    link = Link(valkey.port)
    await valkey.start()
    await link.open()
    fleet = Fleet(folder, link.url, book, seed)
    try:
        await fleet.open()
        yield fleet, valkey, link
    finally:
        await fleet.abandon()
        await link.close()
        valkey.kill()


async def _load(fleet: Fleet, chaos: Chaos, seed: int, seconds: float, known: Known, book: Book) -> None:
    """Users at work until the faults are over and the time is up, then until all their turns have ended.

    With the first broken promise it ends: what is left behind then is best looked at soon.
    """
    over = asyncio.Event()
    users = []
    for number in range(USERS):
        client = Client(fleet, book, known, random.Random(f"client {seed} {number}"))  # noqa: S311 - pauses
        users.append(asyncio.create_task(_user(client, seed, number, over, known, book)))
    try:
        await chaos.run(schedule(seed, seconds), seconds)
        over.set()
        await asyncio.wait(users, timeout=AFTERMATH if book.broken else None)
    finally:
        for user in users:
            user.cancel()
        ends = await asyncio.gather(*users, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def _user(
    client: Client, seed: int, number: int, over: asyncio.Event, known: Known, book: Book
) -> None:
    """Sessions one after the other, each watched on its stream."""
    for session, in_it in groupby(moves(seed, number), lambda move: move.session):
        async with Watcher(session, client, known, book):
            for move in in_it:
                if over.is_set():
                    return
                await asyncio.sleep(move.thinking)
                async with asyncio.TaskGroup() as group:
                    for post in move.posts:
                        group.create_task(client.turn(post))
                        await asyncio.sleep(move.gap)
