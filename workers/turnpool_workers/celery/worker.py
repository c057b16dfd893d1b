"""The worker process: a Celery worker on the asyncio pool."""

import asyncio
import itertools
import logging
import os
import socket
import sys
from typing import Any

from celery.signals import worker_shutting_down

from turnpool import tracing
from turnpool.collector import tune_garbage_collector
from turnpool.exposition import PoolMetrics
from turnpool.keys import wakeups
from turnpool.logs import configure, get_logger
from turnpool.redis.access import Role
from turnpool.settings import Settings, exit_on_settings_error, load_settings, warn_of_unknown_settings
from turnpool.store.membership import Membership
from turnpool.store.startup import check
from turnpool_workers.agents import load_agents
from turnpool_workers.celery.app import make_app
from turnpool_workers.celery.consumer import PoolConsumer
from turnpool_workers.celery.pool import AsyncioPool
from turnpool_workers.probes import serve_probes
from turnpool_workers.service import WorkerService

log = get_logger(__name__)

# Seconds. Celery's thread and the turns' take turns at the interpreter; at the usual 5 ms each message
# waits for it several times, which makes a burst half as slow again.
SWITCH_INTERVAL = 0.0001
# The second signal cuts the grace time short.
SIGNALS_TO_END = 3


def serve() -> None:
    """Run a worker as the environment says, until it is drained; its exit status is the process's."""
    settings = load_settings()
    configure(settings.log_level, "worker")
    warn_of_unknown_settings()
    with exit_on_settings_error():
        status = run(settings)
    # Not sys.exit: it would wait for the threads that agents have left behind, for ever.
    tracing.flush()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run(settings: Settings) -> int:
    """Run a worker; gives its exit status. Raises SettingsError for agents that cannot be loaded, or none."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    if settings.tracing:
        tracing.setup("turnpool-worker")
    agents = load_agents(settings.served_agents)
    asyncio.run(check(settings, Role.WORKER))
    asyncio.run(Membership(settings).enter())
    worker_id = f"{socket.gethostname()}-{os.getpid()}"
    app = make_app(settings)
    service = WorkerService(settings, agents, worker_id)
    if settings.metrics_port:
        serve_probes(settings.host, settings.metrics_port, service.health, PoolMetrics(settings.namespace))
    PoolConsumer.on_connection = staticmethod(service.health.broker_connected)
    worker = app.Worker(
        hostname=f"{settings.namespace}@{worker_id}",
        pool=type("Pool", (AsyncioPool,), {"service": service}),
        concurrency=settings.concurrency,
        queues=[wakeups(settings.namespace, queue) for queue in settings.queue_names],
        loglevel=settings.log_level,
        quiet=True,
        without_mingle=True,
        without_gossip=True,
    )

    asked = itertools.count(1)

    @worker_shutting_down.connect(weak=False)
    def _(**_: Any) -> None:
        # Whatever the process hangs in: who asks a third time means it.
        if next(asked) == SIGNALS_TO_END:
            os._exit(1)
        service.begin_drain()
        if worker.pool:
            worker.pool.wake()

    tune_garbage_collector()
    log.info("worker_started", worker=worker_id, queues=settings.queue_names, agents=list(agents))
    worker.start()
    return int(worker.exitcode or 0)
