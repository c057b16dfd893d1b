"""The API's metrics."""

from prometheus_client import Counter, Gauge, Histogram

from turnpool.models import QueueState, WorkerInfo
from turnpool.settings import Settings

REQUESTS = Counter("turnpool_http_requests", "Requests, by route and status.", ["method", "route", "status"])
LATENCY = Histogram(
    "turnpool_http_response_start_seconds", "From request to first byte of answer.", ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)  # fmt: skip
CONNECTIONS = Gauge("turnpool_http_connections", "Open client connections.")
REFUSED_CONNECTIONS = Counter(
    "turnpool_http_connections_refused", "Connections over a limit: of all, or of one address.", ["limit"]
)
REFUSED_REQUESTS = Counter(
    "turnpool_http_requests_refused", "Requests refused before they reached a route, by reason.", ["code"]
)
STREAMS = Gauge("turnpool_streams", "Open event streams.")
OPENS = Counter(
    "turnpool_stream_opens", "Streams opened, from the first event or resumed after another.", ["start"]
)
EVENTS = Counter("turnpool_events_relayed", "Events received over pub/sub.")
CATCH_UPS = Counter(
    "turnpool_stream_catch_ups", "Times a stream went back to the log, by reason.", ["reason"]
)
SUBMITTED = Counter("turnpool_turns_submitted", "Turns accepted.", ["queue"])
REFUSED = Counter("turnpool_submits_refused", "Turns not accepted, by error code.", ["code"])

# Of the whole pool, read from Redis when Prometheus asks: the same from every API process.
DEPTH = Gauge("turnpool_queue_depth", "Turns that wait.", ["queue"])
READY = Gauge("turnpool_queue_ready", "Turns that wait for a worker and for no other turn.", ["queue"])
RUNNING = Gauge("turnpool_queue_running", "Turns that run.", ["queue"])
OLDEST = Gauge("turnpool_queue_oldest_wait_seconds", "How long the oldest waiting turn waits.", ["queue"])
SLOTS = Gauge("turnpool_queue_slots", "Turns that workers which do not drain can run at once.", ["queue"])
WORKERS = Gauge("turnpool_queue_workers", "Workers that do not drain.", ["queue"])
SUSPECTS = Gauge(
    "turnpool_queue_suspects", "Turns that wait for a trial, having lost several workers.", ["queue"]
)
UNSERVED = Gauge("turnpool_queue_unserved", "Turns whose agent no live worker has.", ["queue", "agent"])
HUNG = Gauge("turnpool_queue_hung_workers", "Workers whose event loop stands still.", ["queue"])
# Settings of this process, which alerts are measured by.
LIMIT = Gauge("turnpool_queue_limit", "Turns that may wait (TURNPOOL_MAX_QUEUED).", ["queue"])
DEADLINE = Gauge(
    "turnpool_queue_deadline_seconds",
    "Life of a turn whose post says no other (TURNPOOL_DEADLINE_SECONDS).",
    ["queue"],
)
GAUGES = (DEPTH, READY, RUNNING, OLDEST, SLOTS, WORKERS, SUSPECTS, UNSERVED, HUNG, LIMIT, DEADLINE)


def show_pool(queues: list[QueueState], workers: list[WorkerInfo], settings: Settings) -> None:
    """Set the figures of the pool; without queues there are none."""
    for gauge in GAUGES:
        gauge.clear()
    for queue in queues:
        serving = [worker for worker in workers if queue.name in worker.queues and not worker.draining]
        DEPTH.labels(queue.name).set(queue.queued)
        READY.labels(queue.name).set(queue.ready)
        RUNNING.labels(queue.name).set(queue.running)
        OLDEST.labels(queue.name).set(queue.oldest_wait_seconds)
        SLOTS.labels(queue.name).set(sum(worker.slots for worker in serving))
        WORKERS.labels(queue.name).set(len(serving))
        HUNG.labels(queue.name).set(sum(worker.hung for worker in serving))
        SUSPECTS.labels(queue.name).set(queue.suspects)
        for agent, count in queue.unserved(workers).items():
            UNSERVED.labels(queue.name, agent).set(count)
        LIMIT.labels(queue.name).set(settings.max_queued)
        DEADLINE.labels(queue.name).set(settings.deadline_seconds)
