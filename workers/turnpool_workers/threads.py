"""Threads for `asyncio.to_thread` and for steps that are plain functions.

asyncio's own pool has a few threads for each CPU, whatever the worker's slots are. This one has as many
as the settings say, made when they are needed. Nothing can stop a thread, so one that outlives its
attempt keeps its slot: a worker that went on claiming would find no thread for the next turn.
"""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from threading import Lock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# The attempt that runs in this context.
ATTEMPT: ContextVar[object | None] = ContextVar("attempt", default=None)


class Threads(ThreadPoolExecutor):
    """The default executor of a worker's loop."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit, thread_name_prefix="turnpool-thread")
        self.limit = limit
        self._lock = Lock()
        self._calls: Counter[object] = Counter()
        self._abandoned: set[object] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in a thread, once one is free."""
        return super().submit(self._run, ATTEMPT.get(), fn, args, kwargs)

    def _run(
        self, attempt: object, fn: Callable[..., T], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> T:
        with self._lock:
            self._calls[attempt] += 1
        try:
            return fn(*args, **kwargs)
        finally:
            with self._lock:
                self._calls[attempt] -= 1
                if not self._calls[attempt]:
                    del self._calls[attempt]
                    self._abandoned.discard(attempt)

    def abandon(self, attempt: object) -> None:
        """An attempt has ended; what it has left in threads holds slots from now on."""
        with self._lock:
            if attempt in self._calls:
                self._abandoned.add(attempt)

    @property
    def busy(self) -> int:
        """Threads in use."""
        with self._lock:
            return self._calls.total()

    @property
    def abandoned(self) -> int:
        """Threads in use by attempts that have ended."""
        with self._lock:
            return sum(self._calls[attempt] for attempt in self._abandoned)
