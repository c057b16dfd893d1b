"""What API and worker both measure, and the watch on a process's loop and on Redis."""

import asyncio
from functools import cache
from typing import TypeVar

from prometheus_client import Counter, Histogram

from turnpool.errors import StoreAwayError
from turnpool.store.store import Store

# Seconds between two looks; Prometheus reads every 15 to 60.
WATCH_SECONDS = 1.0

FAILED = Counter("turnpool_turns_failed", "Turns that failed, by error code.", ["queue", "code"])
TOPPED_UP = Counter("turnpool_wakeups_topped_up", "Wake-ups published for lost ones.", ["queue"])
LAG = Histogram(
    "turnpool_event_loop_lag_seconds", "How much later than asked for the event loop woke.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)  # fmt: skip
ROUND_TRIP = Histogram(
    "turnpool_redis_round_trip_seconds", "From a PING to its answer, as this process sees it.",
    buckets=(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)  # fmt: skip
REDIS_ERRORS = Counter("turnpool_redis_errors", "PINGs that Redis did not answer.")

M = TypeVar("M", Counter, Histogram)


@cache
def labelled(metric: M, *labels: str) -> M:
    """The metric with these labels, of which there are few sets: to find it anew costs more than to count."""
    return metric.labels(*labels)


async def watch(store: Store) -> None:
    """Measure the loop's lag and Redis' round trip until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + WATCH_SECONDS
        await asyncio.sleep(WATCH_SECONDS)
        LAG.observe(max(loop.time() - due, 0))
        started = loop.time()
        try:
            await store.ping()
            ROUND_TRIP.observe(loop.time() - started)
        except StoreAwayError:
            REDIS_ERRORS.inc()


async def count_failures(store: Store, queue: str, turn_ids: tuple[str, ...]) -> None:
    """Count turns that a script ended; those that it cancelled have no error."""
    for turn_id in turn_ids:
        if code := await store.error_code(turn_id):
            FAILED.labels(queue, code).inc()
