"""turnpool's worker on Celery's stock threads pool: a thread for each turn that waits for its coroutine.

What a team would do first: all else is turnpool's own worker, so the pool is what differs.
"""

import asyncio
import os
import socket
import threading
from typing import Any

import uvloop
from celery.signals import worker_shutting_down

from turnpool.keys import queue_of, wakeups
from turnpool.logs import configure
from turnpool.settings import load_settings
from turnpool.store.wakeups import TASK_NAME
from turnpool_workers.agents import load_agents
from turnpool_workers.celery.app import make_app
from turnpool_workers.service import WorkerService


def main() -> None:
    """Run until SIGTERM."""
    settings = load_settings()
    configure(settings.log_level, "worker")
    worker_id = f"{socket.gethostname()}-{os.getpid()}"
    service = WorkerService(settings, load_agents(settings.served_agents), worker_id)
    loop = uvloop.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(service.start(), loop).result()
    app = make_app(settings)
    # Celery's own consumer: the other wakes a hub that this pool has not.
    app.conf.update(worker_consumer="celery.worker.consumer:Consumer")
    app.tasks.pop(TASK_NAME)

    @app.task(name=TASK_NAME)
    def _(name: str) -> str:
        return asyncio.run_coroutine_threadsafe(service.serve(queue_of(name)), loop).result()

    @worker_shutting_down.connect(weak=False)
    def _(**_: Any) -> None:
        service.begin_drain()

    worker = app.Worker(
        hostname=f"turnpool@{worker_id}",
        pool="threads",
        concurrency=settings.concurrency,
        queues=[wakeups(settings.namespace, queue) for queue in settings.queue_names],
        loglevel=settings.log_level,
        quiet=True,
        without_mingle=True,
        without_gossip=True,
    )
    worker.start()
    asyncio.run_coroutine_threadsafe(service.drain(), loop).result()


if __name__ == "__main__":
    main()
