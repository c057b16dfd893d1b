"""Keeps a worker's leases, and looks after what dead workers and lost wake-ups left behind.

It has a thread and a loop of its own, so an agent that blocks the worker's loop loses no lease. On
it each duty has a task of its own, so that none waits for another: leases need only the store, while
a broker that hangs delays nothing but the topping up.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from turnpool.errors import StoreAwayError
from turnpool.logs import get_logger
from turnpool.metrics import TOPPED_UP, count_failures
from turnpool.models import WorkerInfo
from turnpool.redis.connections import connect
from turnpool.settings import Settings
from turnpool.store.store import Store
from turnpool.store.wakeups import TOP_UP_SECONDS, WakeUps
from turnpool_workers import metrics
from turnpool_workers.deletion_cost import LOOK_SECONDS, DeletionCost
from turnpool_workers.health import BEAT_SECONDS, Health
from turnpool_workers.watchdog import Watchdog

log = get_logger(__name__)

# Renewals within one lease: a cancel is seen in half a second at the default of 3 s, and a lease
# survives several that are late.
RENEWALS_PER_LEASE = 6
# Connections: a command of each duty at a time.
CONNECTIONS = 4

Held = list[tuple[str, int]]


class Watch(NamedTuple):
    """Who notices that the worker's loop stands still, and what the keeper tells the probes."""

    health: Health
    watchdog: Watchdog


# Turns that one call of reap.lua takes at most; then there may be more.
REAPED_AT_ONCE = 100


class Keeper:
    """The thread that renews, reaps, expires and tops up.

    `state` gives the worker and the turns it runs (id, attempt); `on_stop` is told which to stop
    and why, `on_parked` of turns that only workers with their agent may claim: the queue, and their
    partitions. All are called on the keeper's thread.
    """

    def __init__(
        self,
        settings: Settings,
        state: Callable[[], tuple[WorkerInfo, Held]],
        on_stop: Callable[[dict[str, str]], None],
        on_parked: Callable[[str, tuple[str, ...]], None] = lambda *_: None,
        watch: Watch | None = None,
    ) -> None:
        self._settings = settings
        self._state = state
        self._on_stop = on_stop
        self._on_parked = on_parked
        self._watch = watch
        self._cost = DeletionCost() if settings.pod_deletion_cost else None
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
        store = Store.connect(self._settings, CONNECTIONS)
        wakeups = WakeUps(connect(self._settings.broker, connections=CONNECTIONS), self._settings.namespace)
        interval = self._settings.lease_seconds / RENEWALS_PER_LEASE

        async def top_up() -> None:
            for queue in self._settings.queue_names:
                TOPPED_UP.labels(queue).inc(await wakeups.top_up(store, queue))

        # Not cancelled: redis-py can swallow a cancel, and leaves a connection open that it meets half-made.
        ending = asyncio.Event()
        duties = [
            asyncio.create_task(_every(interval, lambda: self._renew(store), ending), name="renew"),
            asyncio.create_task(_every(interval, lambda: self._look(store, wakeups), ending), name="look"),
            asyncio.create_task(_every(TOP_UP_SECONDS, top_up, ending), name="top up"),
        ]
        if watch := self._watch:
            duties.append(
                asyncio.create_task(
                    _every(BEAT_SECONDS, lambda: watch.watchdog.look(store, wakeups), ending), name="watch"
                )
            )
        if cost := self._cost:
            duties.append(
                asyncio.create_task(
                    _every(LOOK_SECONDS, lambda: cost.tell(self._state()[0].running), ending), name="cost"
                )
            )
        await asyncio.to_thread(self._closing.wait)
        ending.set()
        await asyncio.wait(duties)
        await _once(lambda: store.leave(self._state()[0].id))
        if cost:
            await cost.close()
        await wakeups.close()
        await store.close()

    async def _renew(self, store: Store) -> None:
        worker, held = self._state()
        stop = await store.renew(worker, held)
        if self._watch:
            self._watch.health.renewed()
        if stop:
            self._on_stop(stop)

    async def _look(self, store: Store, wakeups: WakeUps) -> None:
        for queue in self._settings.queue_names:
            while await self._reap(store, wakeups, queue) >= REAPED_AT_ONCE:
                pass
            ended, woken = await store.expire(queue)
            wakeups.publish(woken)
            await count_failures(store, queue, ended)

    async def _reap(self, store: Store, wakeups: WakeUps, queue: str) -> int:
        """Take lost turns from their workers; gives how many."""
        reaped = await store.reap(queue, self._state()[0].agents)
        if reaped.parked:
            self._on_parked(queue, reaped.parked)
        for turn_id in reaped.requeued:
            log.warning("turn_requeued", turn=turn_id, queue=queue)
        metrics.TAKEOVERS.labels(queue).inc(len(reaped.requeued))
        wakeups.publish(reaped.woken)
        await count_failures(store, queue, reaped.ended)
        return len(reaped.requeued) + len(reaped.ended)


async def _every(seconds: float, duty: Callable[[], Awaitable[None]], ending: asyncio.Event) -> None:
    """Do a duty again and again, whatever happens, until the end."""
    loop = asyncio.get_running_loop()
    while not ending.is_set():
        started = loop.time()
        await _once(duty)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(started + seconds - loop.time(), 0.01)):
                await ending.wait()


async def _once(duty: Callable[[], Awaitable[None]]) -> None:
    try:
        await duty()
    except StoreAwayError as error:
        log.warning("redis_away", error=error.reason)
    except Exception:
        log.exception("keeper_failed")
