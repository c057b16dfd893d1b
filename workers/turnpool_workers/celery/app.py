"""The Celery app, and its one task."""

from typing import Any

from celery import Celery
from kombu.entity import Queue

from turnpool import keys
from turnpool.settings import DEFAULT_QUEUE, Settings
from turnpool.store.wakeups import TASK_NAME
from turnpool_workers.celery.transport import broker_conf


def make_app(settings: Settings) -> Celery:
    """A Celery app on the broker of the settings."""
    app = Celery(settings.namespace, events="turnpool_workers.celery.consumer:Events", set_as_current=False)
    app.conf.update(_config(settings))
    app.task(_wake_up, name=TASK_NAME)
    return app


def _config(settings: Settings) -> dict[str, Any]:
    names = [keys.wakeups(settings.namespace, queue) for queue in settings.queue_names]
    # A wake-up may be lost, so the broker keeps no list of the unacknowledged: two round trips less for each.
    queues = [
        Queue(name, routing_key=name, no_ack=True)  # type: ignore[no-untyped-call]
        for name in names
    ]
    return {
        **broker_conf(settings.broker, settings.concurrency, names),
        # A worker outlives any time without its broker.
        "broker_connection_max_retries": None,
        "broker_connection_retry_on_startup": True,
        # Nor does one end it that answers, but refuses: it has lost its replicas, or is one now.
        "broker_channel_error_retry": True,
        "task_queues": queues,
        "task_default_queue": keys.wakeups(settings.namespace, DEFAULT_QUEUE),
        # Pools that share a broker hear neither each other's commands nor each other's events.
        "control_exchange": keys.control(settings.namespace),
        "event_exchange": keys.task_events(settings.namespace),
        "event_queue_prefix": keys.task_events(settings.namespace),
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_acks_late": False,
        "worker_consumer": "turnpool_workers.celery.consumer:PoolConsumer",
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # Flower turns them on, every five seconds again; without it nobody would read what they cost.
        "worker_send_task_events": False,
        "event_queue_expires": 60,
    }


def _wake_up(queue: str) -> None:
    """Celery has to know the task; our pool serves it itself (`turnpool_workers/celery/pool.py`)."""
    msg = f"queue {queue} needs turnpool's own pool; start workers with turnpool-worker"
    raise RuntimeError(msg)
