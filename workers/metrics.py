"""A worker's metrics, served on a port of their own."""

from prometheus_client import Counter, Gauge, Histogram

SLOTS = Gauge("turnpool_worker_slots", "Turns the worker can run at once.")
RUNNING = Gauge("turnpool_worker_running_turns", "Turns the worker runs.")
ATTEMPTS = Counter("turnpool_attempts", "Attempts that ended, by how.", ["queue", "result"])
QUEUE_WAIT = Histogram(
    "turnpool_queue_wait_seconds", "From accepted to claimed.", ["queue"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300),
)  # fmt: skip
RUN_TIME = Histogram(
    "turnpool_attempt_seconds", "From claimed to settled.", ["queue"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)  # fmt: skip
TAKEOVERS = Counter("turnpool_takeovers", "Turns taken from workers that were lost.", ["queue"])
EXPIRED = Counter("turnpool_expired", "Turns whose deadline passed while they waited.", ["queue"])
TOPPED_UP = Counter("turnpool_wakeups_topped_up", "Wake-ups published for lost ones.", ["queue"])
EMPTY = Counter("turnpool_wakeups_empty", "Wake-ups that found nothing ready.", ["queue"])
