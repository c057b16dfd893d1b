"""Wake-ups: the Celery messages that say "there is work in queue Q", published off the event loop.

The core knows no Celery: a process gives the function that sends one. A wake-up that cannot be
sent is dropped with a warning, since the workers top up what misses.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable

from turnpool.logs import get_logger

TASK_NAME = "turnpool.wake_up"

log = get_logger(__name__)


class WakeUps:
    """A thread that sends wake-ups, so that neither broker nor Celery ever blocks an event loop."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send
        self._wanted: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="turnpool-wakeups", daemon=True)
        self._thread.start()

    def publish(self, queues: Iterable[str]) -> None:
        """Send one wake-up for each queue named, soon."""
        with self._changed:
            self._wanted.update(queues)
            self._changed.notify()

    def close(self, timeout: float = 3.0) -> None:
        """Send what is left, then end; wait for that so many seconds at most."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while queues := self._next():
            for queue in queues:
                try:
                    self._send(queue)
                except Exception as error:  # noqa: BLE001 - kombu raises what its transport raises
                    log.warning("wakeup_not_sent", queue=queue, error=repr(error))

    def _next(self) -> list[str]:
        with self._changed:
            while not self._wanted and not self._closing:
                self._changed.wait()
            queues = list(self._wanted.elements())
            self._wanted.clear()
            return queues
