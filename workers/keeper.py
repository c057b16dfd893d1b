"""Keeps a worker's leases, and looks after what dead workers and lost wake-ups left behind.

It has a thread and a loop of its own, so an agent that blocks the worker's loop loses no lease.
"""

import asyncio
import threading
import time
from collections.abc import Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from turnpool.logs import get_logger
from turnpool.models import WorkerInfo
from turnpool.redis import connect, is_away
from turnpool.settings import Settings
from turnpool.store import Store
from turnpool.wakeups import WakeUps
from workers import metrics

log = get_logger(__name__)

# Renewals within one lease: a cancel is seen in half a second at the default of 3 s, and a lease
# survives several that are late.
RENEWALS_PER_LEASE = 6
# Milliseconds between two looks for lost wake-ups: longer than a wake-up is on its way.
TOP_UP_INTERVAL_MS = 1000
# Connections: the store's and the broker's commands come one after the other.
CONNECTIONS = 2

Held = list[tuple[str, int]]


class Keeper:
    """The thread that renews, reaps, expires and tops up.

    `state` gives the worker and the turns it runs (id, attempt); `on_stop` is told which to stop
    and why. Both are called on the keeper's thread.
    """

    def __init__(
        self,
        settings: Settings,
        state: Callable[[], tuple[WorkerInfo, Held]],
        on_stop: Callable[[dict[str, str]], None],
    ) -> None:
        self._settings = settings
        self._state = state
        self._on_stop = on_stop
        self._interval = settings.lease_seconds / RENEWALS_PER_LEASE
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="turnpool-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Take the worker off the list and end."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        store = Store(connect(self._settings.redis_url, connections=CONNECTIONS), self._settings)
        broker = connect(self._settings.broker, connections=CONNECTIONS)
        wakeups = WakeUps(broker)
        try:
            await self._loop(store, broker, wakeups)
        finally:
            await wakeups.close()
            await store.close()

    async def _loop(self, store: Store, broker: Redis, wakeups: WakeUps) -> None:
        while not self._closing.is_set():
            started = time.monotonic()
            try:
                await self._renew(store)
                await self._look(store, broker, wakeups)
            except (RedisError, OSError) as error:
                if not is_away(error):
                    log.exception("keeper_failed")
                log.warning("redis_away", error=str(error))
            pause = self._interval - (time.monotonic() - started)
            await asyncio.to_thread(self._closing.wait, max(pause, 0.01))
        try:
            await store.leave(self._state()[0].id)
        except (RedisError, OSError) as error:
            log.warning("redis_away", error=str(error))

    async def _renew(self, store: Store) -> None:
        worker, held = self._state()
        if stop := await store.renew(worker, held):
            self._on_stop(stop)

    async def _look(self, store: Store, broker: Redis, wakeups: WakeUps) -> None:
        for queue in self._settings.queue_names:
            reaped = await store.reap(queue)
            for turn_id in reaped.requeued:
                log.warning("takeover", turn=turn_id, queue=queue)
            metrics.TAKEOVERS.labels(queue).inc(len(reaped.requeued))
            ended, woken = await store.expire(queue)
            metrics.EXPIRED.labels(queue).inc(len(ended))
            missing = await store.top_up(queue, int(await broker.llen(queue)), TOP_UP_INTERVAL_MS)
            metrics.TOPPED_UP.labels(queue).inc(missing)
            wakeups.publish((*reaped.woken, *woken, *([queue] * missing)))
