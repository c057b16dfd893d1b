"""The API's metrics."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("turnpool_http_requests", "Requests, by route and status.", ["method", "route", "status"])
LATENCY = Histogram(
    "turnpool_http_response_start_seconds", "From request to first byte of answer.", ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)  # fmt: skip
STREAMS = Gauge("turnpool_streams", "Open event streams.")
EVENTS = Counter("turnpool_events_relayed", "Events received over pub/sub.")
CATCH_UPS = Counter(
    "turnpool_stream_catch_ups", "Times a stream went back to the log, by reason.", ["reason"]
)
SUBMITTED = Counter("turnpool_turns_submitted", "Turns accepted.", ["queue"])
