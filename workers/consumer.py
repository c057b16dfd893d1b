"""Celery's consumer, but with task events sent in batches, and an even pace of reconnecting.

Celery publishes the events of each message at once: a fifth of a worker's time in a burst. Flower
may as well hear of them a little later. And it waits longer after each try to connect, up to half a
minute: time in which a worker stands idle though the broker is back. A heartbeat for Flower even waits
until the broker is there again, says nothing meanwhile, and keeps a worker from ending.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from celery.app import events
from celery.events import EventDispatcher
from celery.worker.consumer import Consumer
from kombu.connection import Connection

# Seconds that task events may wait.
EVENT_DELAY = 0.1
# Seconds between two tries to connect to the broker.
RECONNECT = 1.0


class PoolConsumer(Consumer):
    """Flushes task events at most every EVENT_DELAY, or when Celery's buffer is full."""

    # Not a flag: a reconnection drops the timer's entries, and then this has just passed.
    _planned = 0.0
    # Told whether the broker is connected.
    on_connection: ClassVar[Callable[..., None]] = staticmethod(lambda **_: None)

    def on_send_event_buffered(self) -> None:
        """Plan a flush; called by the event dispatcher with each event it buffers."""
        now = time.monotonic()
        if self.hub and now >= self._planned:
            self._planned = now + EVENT_DELAY
            self.hub.call_later(EVENT_DELAY, self._flush_events)

    def ensure_connected(self, conn: Connection) -> Connection:
        """Connect, however long it takes; called at the start and after each loss."""
        self.on_connection(connected=False)
        pace = {"interval_start": RECONNECT, "interval_step": 0, "interval_max": RECONNECT}
        conn.ensure_connection = partial(conn.ensure_connection, **pace)  # type: ignore[method-assign]
        connected: Connection = super().ensure_connected(conn)
        self.on_connection(connected=True)
        return connected


class Events(events.Events):
    """For `Celery(events=)`."""

    dispatcher_cls = f"{__name__}:Dispatcher"


class Dispatcher(EventDispatcher):
    """Waits for no broker: what cannot be sent now is sent once the consumer has connected again."""

    def send(self, type: str, **fields: Any) -> None:  # noqa: A002 - its name is Celery's
        """Send an event, with one try."""
        super().send(type, **{**fields, "retry": False})
