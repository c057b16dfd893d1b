"""The Celery app, and its one task."""

from celery import Celery
from kombu import Queue

from turnpool.settings import Settings
from turnpool.wakeups import TASK_NAME, celery_config


def make_app(settings: Settings) -> Celery:
    """A Celery app on the broker of the settings."""
    app = Celery("turnpool", set_as_current=False)
    app.conf.update(celery_config(settings))
    # A wake-up may be lost, so the broker keeps no list of the unacknowledged: two round trips less for each.
    app.conf.task_queues = [Queue(name, routing_key=name, no_ack=True) for name in settings.queue_names]
    app.task(_wake_up, name=TASK_NAME)
    return app


def send_wake_up(app: Celery, queue: str) -> None:
    """Publish one wake-up. Raises what kombu raises when the broker is away."""
    app.send_task(TASK_NAME, args=(queue,), queue=queue)


def _wake_up(queue: str) -> None:
    """Celery has to know the task; our pool serves it itself (`workers/pool.py`)."""
    msg = f"queue {queue} needs turnpool's own pool; start workers with turnpool-worker"
    raise RuntimeError(msg)
