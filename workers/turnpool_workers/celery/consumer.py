"""Celery's consumer, but with task events sent in batches, and an even pace of reconnecting.

Celery publishes the events of each message at once: a fifth of a worker's time in a burst. Flower
may as well hear of them a little later. And it waits longer after each try to connect, up to half a
minute: time in which a worker stands idle though the broker is back. A heartbeat for Flower even waits
until the broker is there again, says nothing meanwhile, and keeps a worker from ending.

A broker that answers but refuses breaks one of the later steps of connecting. Celery then closes only what
was connected completely, and starts again at once: without the care taken here a worker would open a dozen
connections a second, and close none.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from celery.app import events
from celery.events import EventDispatcher
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu.common import ignore_errors
from kombu.connection import Connection

# Seconds that task events may wait.
EVENT_DELAY = 0.1
# Seconds between two tries to connect to the broker.
RECONNECT = 1.0


class PoolConsumer(Consumer):
    """Flushes task events at most every EVENT_DELAY, or when Celery's buffer is full."""

    # Not a flag: a reconnection drops the timer's entries, and then this has just passed.
    _planned = 0.0
    # When it last began to connect, and every connection made since it last closed them.
    _began = -RECONNECT
    _made: list[Connection]
    # Told whether the broker is connected.
    on_connection: ClassVar[Callable[..., None]] = staticmethod(lambda **_: None)

    def on_send_event_buffered(self) -> None:
        """Plan a flush; called by the event dispatcher with each event it buffers."""
        now = time.monotonic()
        if self.hub and now >= self._planned:
            self._planned = now + EVENT_DELAY
            self.hub.call_later(EVENT_DELAY, self._flush_events)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._made = []
        super().__init__(*args, **kwargs)

    def connect(self) -> Connection:
        """Connect, at most once in RECONNECT seconds; called at the start and after each loss."""
        state.maybe_shutdown()
        time.sleep(max(self._began + RECONNECT - time.monotonic(), 0))
        state.maybe_shutdown()
        self._began = time.monotonic()
        connected: Connection = super().connect()
        return connected

    def on_close(self) -> None:
        """Close all connections of the last try, those too that Celery never came to know."""
        super().on_close()
        # The dispatcher's takes events until the next one is there, and Celery closes it then. The other is
        # open still if the worker ends.
        kept = [self.connection, self.event_dispatcher and self.event_dispatcher.connection]
        for connection in self._made:
            if connection not in kept:
                ignore_errors(connection, connection.close)  # type: ignore[no-untyped-call]
        self._made = [connection for connection in self._made if connection in kept]

    def ensure_connected(self, conn: Connection) -> Connection:
        """Connect, however long it takes; for tasks and commands, and again for events."""
        self._made.append(conn)
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
