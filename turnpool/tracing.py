"""OpenTelemetry traces, from the request through the queue to the model.

The turn carries the W3C trace context of the request that posted it. Without `setup` all of this
does nothing: that is how OpenTelemetry's API behaves without its SDK.
Source: https://www.w3.org/TR/trace-context/
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from turnpool.errors import SettingsError

_PROPAGATOR = TraceContextTextMapPropagator()
_TRACER = trace.get_tracer("turnpool")


def setup(service: str) -> None:
    """Export spans as the standard variables (OTEL_EXPORTER_OTLP_ENDPOINT, …) say. Raises SettingsError."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the same
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the same
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the same
    except ImportError as error:
        raise SettingsError(
            "TURNPOOL_TRACING needs the extra `otel`: pip install 'turnpool[otel]'"
        ) from error
    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def flush() -> None:
    """Export what has ended, before a process that ends without its exit handlers does."""
    provider = trace.get_tracer_provider()
    if shutdown := getattr(provider, "shutdown", None):
        shutdown()


def headers(span: Span | None = None) -> dict[str, str]:
    """A span, or the current one, as HTTP headers (`traceparent`, `tracestate`); empty if there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, trace.set_span_in_context(span) if span else None)
    return carrier


@cache
def _is_traced() -> bool:
    """Whether spans go anywhere, from `setup` or by whoever else started the process; asked once."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def turn_span(traceparent: str, **attributes: str | int) -> Iterator[Span]:
    """A span for one attempt at a turn, a child of the request that posted it."""
    if not (traceparent or _is_traced()):
        # What OpenTelemetry does to do nothing costs a turn as much as a command to Redis.
        yield trace.INVALID_SPAN
        return
    parent = _PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
    named = {f"turnpool.{name}": value for name, value in attributes.items()}
    with _TRACER.start_as_current_span(
        "turn", context=parent, kind=SpanKind.CONSUMER, attributes=named
    ) as span:
        yield span


def model_span(model: str, address: str) -> Span:
    """A span for one call of a model; whoever starts it ends it.

    Names: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
    """
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "server.address": address,
    }
    return _TRACER.start_span(f"chat {model}", kind=SpanKind.CLIENT, attributes=attributes)
