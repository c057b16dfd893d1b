"""Celery's worker pool on asyncio: any number of turns in one thread.

Deliberately odd:
- Celery's tracer (`target`) is not called. It exists for results, retries and chains, of which a
  wake-up has none; without it no greenlet has to bridge its plain calls to coroutines.
- Celery's callbacks run in the main thread, as its own prefork pool has it: the loop's thread puts
  them in a queue and wakes the hub by a pipe. So kombu's channels are never used from two threads.
- Wake-ups are consumed with `no_ack` (`app.py`) and taken for acknowledged: one that is lost
  is made up for.
- `terminate_job` does nothing: turns are cancelled by the API, not by Celery's revoke.
"""

import asyncio
import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import uvloop
from celery.concurrency.base import BasePool

from turnpool.keys import queue_of
from turnpool.logs import get_logger

log = get_logger(__name__)


class Service(Protocol):
    """What the pool runs."""

    async def start(self) -> None:
        """Begin, on the loop's thread."""

    async def serve(self, queue: str) -> str:
        """Serve one wake-up; the answer is shown in Flower as the task's result."""

    async def drain(self) -> None:
        """End all turns or give them back, then close."""

    def hurry(self) -> None:
        """Cut the drain's grace time short. Called from any thread."""

    def occupied(self) -> int:
        """Slots that no wake-up may use now. Called from any thread."""

    def info(self) -> dict[str, Any]:
        """What Flower's pool page shows."""


class AsyncioPool(BasePool):
    """One event loop in one thread; `limit` wake-ups at once."""

    service: ClassVar[Service]
    signal_safe = False
    body_can_be_buffer = True

    def on_start(self) -> None:
        """Start the loop and the service on it. Raises what the service's start raises."""
        self._loop = uvloop.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._came: deque[tuple[str, Callable[[Any], None]]] = deque()
        self._done: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._thread = threading.Thread(target=self._run, name="turnpool-loop", daemon=True)
        self._stopping = False
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.service.start(), self._loop).result()
        except BaseException:
            self._end_loop()
            raise

    @property
    def num_processes(self) -> int:
        """How many wake-ups may be under way: Celery takes no more from the broker."""
        return max(int(self.limit) - self.service.occupied(), 0)

    def register_with_event_loop(self, hub: Any) -> None:
        """Called at each (re)connection: the hub then wakes when a turn has ended."""
        hub.add_reader(self._wake_read, self._run_callbacks)

    def on_apply(
        self,
        target: Any,
        args: Any,
        kwargs: Any,
        *,
        callback: Callable[[Any], None],
        accept_callback: Any,
        **_: Any,
    ) -> None:
        """Serve a wake-up."""
        del target, kwargs
        # Celery would ask the broker to forget what it does not keep (no_ack): a round trip.
        accept_callback.__self__.acknowledged = True
        accept_callback(os.getpid(), time.monotonic())
        queue = queue_of(args[2]["delivery_info"]["routing_key"])
        self._came.append((queue, callback))
        # One call wakes the loop for all that has come until it runs.
        if len(self._came) == 1:
            self._loop.call_soon_threadsafe(self._spawn)

    def wake(self) -> None:
        """Let the hub take a turn now. Called from any thread, and from signal handlers."""
        # A full pipe wakes the hub as well.
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def on_stop(self) -> None:
        """Drain; a second call, by a second signal, cuts the grace time short."""
        if self._stopping:
            self.service.hurry()
            return
        self._stopping = True
        drained = asyncio.run_coroutine_threadsafe(self._drain(), self._loop)
        drained.add_done_callback(lambda _: self.wake())
        while not drained.done():
            # The hub stands still while the pool stops, so its callbacks are run here.
            select.select([self._wake_read], [], [])
            self._run_callbacks()
        self._end_loop()
        drained.result()

    on_terminate = on_stop

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Celery's cold shutdown asks for this."""

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), **self.service.info()}

    def _end_loop(self) -> None:
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            if not self._stopping:
                # Without its loop the worker would only keep its leases. Others have the turns in seconds.
                log.critical("event_loop_died")
                os._exit(1)

    def _spawn(self) -> None:
        while self._came:
            task = self._loop.create_task(self._serve(*self._came.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, queue: str, callback: Callable[[Any], None]) -> None:
        started = time.monotonic()
        try:
            result = await self.service.serve(queue)
        except Exception:
            log.exception("wakeup_failed", queue=queue)
            result = "failed; see the worker's log"
        runtime = time.monotonic() - started
        self._done.append(lambda: callback((False, result, runtime)))
        # As in `on_apply`: the hub runs all that has come until it is there.
        if len(self._done) == 1:
            self.wake()

    async def _drain(self) -> None:
        await self.service.drain()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _run_callbacks(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        try:
            while self._done:
                self._done.popleft()()
        finally:
            # Celery's own may raise; those behind it have their turn nevertheless.
            if self._done:
                self.wake()
