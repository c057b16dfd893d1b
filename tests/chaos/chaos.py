"""Carries the schedule out."""

import asyncio
import signal
import time
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis

from tests.chaos.book import Book, Interval
from tests.chaos.faults import CALM, KILLS, ON_API, ON_REDIS, Fault, Kind
from tests.chaos.inside import WAKEUPS
from tests.chaos.link import Link
from tests.chaos.pool import LONG, SHORT, Fleet, Slot
from tests.chaos.valkey import Valkey
from tests.conftest import wait_until
from turnpool.store.wakeups import message

# Seconds that each piece waits on its way, while Redis is slow.
DELAY = 0.2


class Chaos:
    """Injects faults into a fleet and its Redis."""

    def __init__(self, fleet: Fleet, valkey: Valkey, link: Link, book: Book) -> None:
        self._fleet, self._valkey, self._link, self._book = fleet, valkey, link, book
        # One thing at a time for a process, and for Redis: a server is not frozen while it is started.
        self._locks = {id(place): asyncio.Lock() for place in (valkey, *fleet.slots)}

    async def run(self, faults: list[Fault], seconds: float) -> None:
        """Inject each at its time. Ends early when a promise was broken, but not before its faults have."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                if await self._broken(started + fault.at):
                    return
                if fault.kind is Kind.ROLL:
                    await self._roll()
                else:
                    group.create_task(self._inject(fault), name=fault.kind)
        await self._broken(started + seconds)

    async def _broken(self, until: float) -> bool:
        """Wait until then, and tell whether a promise was broken meanwhile."""

        async def broken() -> bool:
            return bool(self._book.broken)

        with suppress(TimeoutError):
            await wait_until(broken, max(until - time.monotonic(), 0))
        return bool(self._book.broken)

    async def _inject(self, fault: Fault) -> None:
        self._book.injected[fault.kind] += 1
        place = self._place(fault)
        if isinstance(place, Slot) and fault.kind in KILLS:
            # It waits for nothing: a process may be killed while it drains or stands still.
            place.kill()
            return
        async with self._locks[id(place)]:
            started = time.time()
            if isinstance(place, Slot):
                await self._on_process(fault, place)
            else:
                await self._on_redis(fault)
                if fault.kind in ON_REDIS:
                    self._book.intervals.append(Interval(fault.kind, started, time.time()))

    def _place(self, fault: Fault) -> Slot | Valkey:
        if fault.kind in ON_REDIS | {Kind.LOSE_WAKEUPS, Kind.DOUBLE_WAKEUPS}:
            return self._valkey
        if fault.kind in ON_API:
            return self._fleet.apis[fault.slot]
        if fault.kind is Kind.HAND_BACK:
            return self._fleet.hasty
        patient = self._fleet.workers[1:]
        return (
            patient[fault.slot % len(patient)]
            if fault.kind is Kind.TERM_WORKER
            else self._fleet.workers[fault.slot]
        )

    async def _on_process(self, fault: Fault, slot: Slot) -> None:
        if fault.kind in (Kind.TERM_WORKER, Kind.TERM_API, Kind.HAND_BACK):
            await slot.term()
        else:
            await slot.stop(fault.seconds)

    async def _on_redis(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.CUT:
                self._link.cut()
            case Kind.SLOW:
                self._link.delay = DELAY
                await asyncio.sleep(fault.seconds)
                self._link.delay = 0
            case Kind.REFUSE:
                self._link.refuses = True
                self._link.cut()
                await asyncio.sleep(fault.seconds)
                self._link.refuses = False
            case Kind.FREEZE:
                self._valkey.signal(signal.SIGSTOP)
                await asyncio.sleep(fault.seconds)
                self._valkey.signal(signal.SIGCONT)
            case Kind.KILL_REDIS:
                self._valkey.kill()
                await asyncio.sleep(fault.seconds)
                await self._valkey.start()
            case _:
                await self._on_wakeups(fault.kind)

    async def _on_wakeups(self, kind: Kind) -> None:
        # A connection of its own, since a restart has broken any older one; redis-py's types are too wide.
        redis: Any = Redis.from_url(self._valkey.url)
        async with redis:
            listed = int(await redis.llen(WAKEUPS))
            if kind is Kind.LOSE_WAKEUPS:
                self._book.seen["wake-ups taken away"] += listed
                await redis.delete(WAKEUPS)
            else:
                # Some more than as many again: an idle pool has none to double.
                await redis.lpush(WAKEUPS, *(message(WAKEUPS) for _ in range(listed + 5)))

    async def _roll(self) -> None:
        """Restart every process one by one, with grace enough: nothing may be seen of it."""
        await self._calm()
        self._book.injected[Kind.ROLL] += 1
        started = time.time()
        self._fleet.hasty.grace = SHORT  # of its next process
        for slot in self._fleet.slots:
            await self._restart(slot)
        self._book.intervals.append(Interval(Kind.ROLL, started, time.time()))

    async def _calm(self) -> None:
        """Until every fault is over, and what it left behind has been seen to."""
        for lock in self._locks.values():
            async with lock:
                pass
        self._fleet.hasty.grace = LONG
        await self._restart(self._fleet.hasty)
        # Claims whose answer was lost run out with their lease.
        await asyncio.sleep(CALM)

    async def _restart(self, slot: Slot) -> None:
        await self._fleet.settled()
        starts = slot.starts
        await slot.term()

        async def again() -> bool:
            return slot.starts > starts

        await wait_until(again)
        await self._fleet.settled()
