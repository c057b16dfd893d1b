"""A worker's metrics, served on a port of their own."""

from prometheus_client import Counter, Gauge, Histogram

from turnpool.metrics import FAILED, TOPPED_UP
from turnpool.states import TERMINAL

# Seconds: of waiting, which ends soon or late, and of running.
SHORT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 300)
LONG = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)

SLOTS = Gauge("turnpool_worker_slots", "Turns the worker can run at once.")
RUNNING = Gauge("turnpool_worker_running_turns", "Turns the worker runs.")
DRAINING = Gauge("turnpool_worker_draining", "1 while the worker takes no more turns.")
QUEUE_WAIT = Histogram(
    "turnpool_queue_wait_seconds", "From accepted to claimed, of first attempts.", ["queue"], buckets=SHORT
)
FIRST_TOKEN = Histogram(
    "turnpool_time_to_first_token_seconds", "From accepted to the first text, of first attempts.", ["queue"],
    buckets=SHORT,
)  # fmt: skip
ATTEMPT_TIME = Histogram("turnpool_attempt_seconds", "From claimed to settled.", ["queue"], buckets=LONG)
TURN_TIME = Histogram(
    "turnpool_turn_seconds", "From accepted to ended, by how it ended.", ["queue", "status"], buckets=LONG
)
ATTEMPTS = Counter("turnpool_attempts", "Attempts that ended, by how.", ["queue", "result"])
TOKENS = Counter("turnpool_tokens", "Tokens that agents reported.", ["queue", "kind"])
TAKEOVERS = Counter("turnpool_takeovers", "Turns taken from workers that were lost.", ["queue"])
HAND_BACKS = Counter("turnpool_hand_backs", "Turns given back by a worker that drains.", ["queue"])
RESTARTS = Counter("turnpool_restarts", "Answers that clients saw begin again.", ["queue", "reason"])
EMPTY = Counter("turnpool_wakeups_empty", "Wake-ups that found nothing ready.", ["queue"])
COST_FAILURES = Counter("turnpool_deletion_cost_failures", "Times the pod's deletion cost was not set.")

HUNG = Gauge("turnpool_worker_hung", "1 while the worker's event loop stands still.")
HANGS = Counter(
    "turnpool_worker_hangs", "Times the loop stood still, by the agent that stopped it.", ["agent"]
)
THREADS = Gauge("turnpool_worker_threads_busy", "Threads that run blocking code of agents.")
ABANDONED = Gauge("turnpool_worker_threads_abandoned", "Of these, those whose attempt has ended.")
MAX_THREADS = Gauge("turnpool_worker_threads", "Threads that blocking code of agents may use.")


def start(queues: tuple[str, ...]) -> None:
    """Set all counters to 0 for the queues: of one that begins with its first event, no increase is seen."""
    for queue in queues:
        for counter in (TAKEOVERS, HAND_BACKS, TOPPED_UP, EMPTY):
            counter.labels(queue)
        for reason in ("worker_lost", "drained", "retry"):
            RESTARTS.labels(queue, reason)
        for kind in ("input", "output"):
            TOKENS.labels(queue, kind)
        for result in (*TERMINAL, "handed back", "lease lost"):
            ATTEMPTS.labels(queue, result)
        for code in (
            "worker_lost",
            "deadline_exceeded",
            "expired",
            "provider_error",
            "agent_error",
            "invalid_params",
        ):
            FAILED.labels(queue, code)
