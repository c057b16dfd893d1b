"""Wake-ups: the Celery messages that say "there is work in queue Q", published off the event loop.

The core knows no Celery: here are its settings as plain data, and a thread that calls the function
a process gives to send one. A wake-up that cannot be sent is dropped with a warning, since the
workers top up what misses.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from turnpool.logs import get_logger
from turnpool.redis import broker
from turnpool.settings import DEFAULT_QUEUE, Settings

TASK_NAME = "turnpool.wake_up"

log = get_logger(__name__)


def celery_config(settings: Settings) -> dict[str, Any]:
    """Celery's settings, the same for all processes."""
    url, options = broker(settings.broker)
    # Seconds: a broker that is away is noticed, and never blocks for long.
    timeouts = {"socket_connect_timeout": 2, "socket_timeout": 10, "socket_keepalive": True}
    return {
        "broker_url": url,
        "broker_transport_options": options | timeouts,
        # A worker outlives any time without its broker.
        "broker_connection_max_retries": None,
        "broker_connection_retry_on_startup": True,
        "task_default_queue": DEFAULT_QUEUE,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        # The truth is in the store; a wake-up may be lost, so it is acknowledged at once.
        "task_acks_late": False,
        "task_publish_retry": False,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": True,
        "event_queue_expires": 60,
    }


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
        wanted = Counter(queues)
        if wanted:
            with self._changed:
                self._wanted.update(wanted)
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
                self._send_one(queue)

    def _send_one(self, queue: str) -> None:
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
