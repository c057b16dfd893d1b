"""Places that always have a process, as the replicas of a Deployment."""

import asyncio
import json
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.acceptance.processes import Api, Pool, Process
from tests.chaos.book import Book, Interval
from tests.chaos.faults import APIS, WORKERS
from tests.conftest import wait_until
from turnpool.errors import StoreAwayError

# No turn may fail since chaos took its worker too often; that limit has a test of its own.
SETTINGS = {"CONCURRENCY": "5", "MAX_ATTEMPTS": "100"}
# Seconds of grace: more than any turn takes, and for hand-backs less than most.
LONG, SHORT = 60, 0.5
# Intervals in which something befell a process.
KILLED, STOPPED, TOLD, TOLD_IN_HASTE = "killed", "stopped", "told to stop", "told to stop in haste"
# Seconds a process gets to end after its grace; Redis may be away for most of them.
STUCK = 40


class Slot:
    """One place. `grace`: the drain time of processes that start from now on."""

    def __init__(self, pool: Pool, kind: type[Process], script: str, book: Book) -> None:
        self._pool, self._kind, self._script, self._book = pool, kind, script, book
        self.process: Process | None = None
        self.grace: float = LONG
        self.starts = 0
        self._told: dict[int, set[int]] = {}
        self._hasty = False
        self._port = 0
        self._closing = False

    async def keep(self) -> None:
        """Start a process whenever there is none."""
        while not self._closing:
            env = SETTINGS | {"DRAIN_SECONDS": str(self.grace)}
            process = self._pool.start(self._kind, self._script, **env)
            self._port, self.process, self._hasty = 0, process, self.grace == SHORT
            self.starts += 1
            await _ended(process, 10**6)
            self._judge(process)
            await asyncio.sleep(0.1)  # a process that cannot start is not started a thousand times

    def kill(self) -> None:
        """As a crash does."""
        self._tell(signal.SIGKILL)

    async def term(self) -> None:
        """Tell its process to stop, and wait until it has."""
        if (process := self._tell(signal.SIGTERM)) is None:
            return
        kind = TOLD_IN_HASTE if self._hasty else TOLD
        started = time.time()
        try:
            await _ended(process, LONG + STUCK)
        except TimeoutError:
            self._book.violation("process that does not end", str(process.log))
            self._tell(signal.SIGKILL)
        self._book.intervals.append(Interval(kind, started, time.time(), process.pid))
        self._book.figure("seconds from SIGTERM to exit", time.time() - started)

    async def stop(self, seconds: float) -> None:
        """Let its process stand still for a while."""
        process = self.process
        if process is None or process.status is not None:
            return
        started = time.time()
        process.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        process.signal(signal.SIGCONT)
        self._book.intervals.append(Interval(STOPPED, started, time.time(), process.pid))

    async def close(self) -> None:
        """Tell the last process to stop; it has to, soon."""
        self._closing = True
        await self.term()

    @property
    def port(self) -> int:
        """The port of the API here; 0 while none listens."""
        if not self._port and isinstance(self.process, Api):
            with suppress(json.JSONDecodeError):  # a line half written
                self._port = self.process.port
        return self._port if self.process and self.process.status is None else 0

    def _tell(self, number: signal.Signals) -> Process | None:
        process = self.process
        if process is None or process.status is not None:
            return None
        # What its exit status may be now. Python itself has to begin before SIGTERM can be caught.
        told = self._told.setdefault(process.pid, set())
        if not process.catches(number):
            told.add(-number)
        if number is not signal.SIGKILL:
            told.add(0)
        process.signal(number)
        if number is signal.SIGKILL:
            self._book.intervals.append(Interval(KILLED, time.time(), time.time(), process.pid))
        return process

    def _judge(self, process: Process) -> None:
        expected = self._told.get(process.pid, set())
        detail = f"{process.log}: status {process.status}, expected {expected or 'none'}"
        self._book.expect(process.status in expected, "process that ended by itself", detail)


class Fleet:
    """All places."""

    def __init__(self, folder: Path, redis_url: str, book: Book, seed: int) -> None:
        self._pool = Pool(folder, redis_url)
        self._rng = random.Random(f"ports {seed}")  # noqa: S311 - which API a client takes
        self.workers = [Slot(self._pool, Process, "turnpool-worker", book) for _ in range(WORKERS)]
        self.apis = [Slot(self._pool, Api, "turnpool-api", book) for _ in range(APIS)]
        # The one that hands its turns back when it is told to stop.
        self.hasty = self.workers[0]
        self.hasty.grace = SHORT
        self._keeping: list[asyncio.Task[None]] = []

    @property
    def slots(self) -> list[Slot]:
        """Every place."""
        return [*self.workers, *self.apis]

    async def open(self) -> None:
        """Fill every place and wait until all work."""
        self._keeping = [asyncio.create_task(slot.keep()) for slot in self.slots]
        await self.settled()

    async def settled(self) -> None:
        """Until every API listens and every worker that lives is on the list."""

        async def whole() -> bool:
            try:
                listed = {info.id.rpartition("-")[2] for info in await self._pool.store.workers()}
            except StoreAwayError:
                return False
            running = {str(slot.process.pid) for slot in self.workers if slot.process}
            return running <= listed and all(slot.port for slot in self.apis)

        await wait_until(whole, 60)

    def port(self, other_than: int = 0) -> int:
        """The port of some API that listens; 0 if there is none."""
        ports = [slot.port for slot in self.apis if slot.port]
        return self._rng.choice([port for port in ports if port != other_than] or ports or [0])

    async def close(self) -> None:
        """Stop all; nothing may be stuck."""
        await asyncio.gather(*(slot.close() for slot in self.slots))
        await self.abandon()

    async def abandon(self) -> None:
        """End whatever still lives."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        await self._pool.close()


async def _ended(process: Process, seconds: float) -> None:
    async def ended() -> bool:
        return process.status is not None

    await wait_until(ended, seconds)
