"""What waits for one stream.

A stream that does not keep up costs bounded memory: what waits for it is dropped, and it goes back to
the log. All streams together have a budget: what waits, and the piece that is being sent.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar, TypeVarTuple

from anyio import CancelScope

from turnpool_api import metrics
from turnpool_api.streams.budget import LEAST_SHARE, Budget

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

# Bytes that an event takes here besides its own.
EVENT_OVERHEAD = 120

# Seconds a new stream waits until it is in force: then it reads the log once, or not at all, and not again.
SOON = 0.5


class ClosingError(Exception):
    """The process ends; what was waited for has not come."""


class Subscription:
    """The events that wait for one stream.

    `is_requested`: Redis was asked for the session's events; `is_confirmed`: it has answered, so all events
    arrive from now on. `behind`: the stream has missed an event and must read the log. Call `leave` when the
    stream ends, or use it as a context manager.
    """

    def __init__(
        self, leave: Callable[["Subscription"], None], budget: Budget | None = None, *, is_confirmed: bool
    ) -> None:
        self.is_confirmed = is_confirmed
        self.is_requested = False
        self._leave = leave
        self._budget = budget or Budget()
        self.behind = False
        self.closing = False
        self._waiting: list[tuple[int, bytes]] = []
        self._size = 0
        # Bytes of the piece that is read or sent.
        self._piece = 0
        # Not an event: those of thousands of streams take memory, and time with each wait.
        self._changed: asyncio.Future[None] | None = None
        self._awaited: CancelScope | None = None
        self._loop = asyncio.get_running_loop()
        self._until = self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Hear no more."""
        self._leave(self)
        self._drop_waiting()
        self.hold(0)
        if self._timer:
            self._timer.cancel()

    async def soon(self) -> bool:
        """Wait until it is in force, or for a moment; gives whether it is."""
        if self.is_requested and not (self.is_confirmed or self.closing):
            await self._change(self._loop.time() + SOON)
        return self.is_confirmed

    def push(self, n: int, frame: bytes) -> None:
        """An event of the session's turn n."""
        if self.behind:
            return
        self._waiting.append((n, frame))
        size = len(frame) + EVENT_OVERHEAD
        self._size += size
        self._budget.held += size
        if self._size > LEAST_SHARE and self._size > self._budget.share:
            metrics.CATCH_UPS.labels("slow_client").inc()
            self.fall_behind()
        self._wake()

    def heard(self, *, is_confirmed: bool) -> None:
        """From now on all is heard, or nothing is; what came before is in the log."""
        self.is_confirmed = is_confirmed
        self.fall_behind()

    def fall_behind(self) -> None:
        """Something is missing here."""
        self.behind = True
        self._drop_waiting()
        self._wake()

    def _drop_waiting(self) -> None:
        self._waiting.clear()
        self._budget.held -= self._size
        self._size = 0

    def reserve(self) -> int:
        """Take a share of the budget for the next piece, in place of the last one; gives its bytes."""
        self.hold(0)
        share = self._budget.share
        self.hold(share)
        return share

    def hold(self, size: int) -> None:
        """A piece of this size is being sent, in place of the last one."""
        self._budget.held += size - self._piece
        self._piece = size

    def close(self) -> None:
        """The process ends; so must the stream."""
        self.closing = True
        self._wake()
        if self._awaited:
            self._awaited.cancel()

    async def abort_on_shutdown(
        self, wait: Callable[[*Arguments], Awaitable[T]], *arguments: *Arguments
    ) -> T:
        """What this gives, however long it takes. Raises ClosingError as soon as the process ends."""
        with CancelScope() as self._awaited:
            if not self.closing:
                return await wait(*arguments)
        raise ClosingError

    def catch_up(self) -> None:
        """The log is read from now on; what comes meanwhile is kept again."""
        self.behind = False

    def skip_waiting(self) -> None:
        """Forget the events that wait: the next pages of the log have them."""
        self._drop_waiting()

    def live(self) -> bool:
        """Whether nothing was missed and the process goes on."""
        return not (self.behind or self.closing)

    async def comes(self, until: float) -> None:
        """Wait until there is something to take, or to look at, or until then (loop time)."""
        if self._waiting or not self.live():
            return
        await self._change(until)

    async def _change(self, until: float) -> None:
        self._until = until
        self._set_timer()
        self._changed = self._loop.create_future()
        await self._changed

    def _wake(self) -> None:
        if self._changed and not self._changed.done():
            self._changed.set_result(None)

    def _set_timer(self) -> None:
        """One timer for many waits, of which each mostly ends later than the one before."""
        if self._timer and self._due <= self._until:
            return
        if self._timer:
            self._timer.cancel()
        self._due = self._until
        self._timer = self._loop.call_at(self._until, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        if self._loop.time() < self._until:
            self._set_timer()
        else:
            self._wake()

    async def take(self, until: float) -> list[tuple[int, bytes]]:
        """All that waits, as soon as there is something; nothing if nothing came until then (loop time)."""
        self.hold(0)
        await self.comes(until)
        waiting, self._waiting = self._waiting, []
        self._piece, self._size = self._size, 0
        return waiting
