"""Traces, from a client's request to the model's endpoint, received as an OpenTelemetry collector would."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.acceptance.processes import Pool
from tests.conftest import wait_until
from tests.serving import serving

pytestmark = pytest.mark.anyio

TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CHUNKS = b'data: {"choices": [{"delta": {"content": "salt"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


class Endpoint:
    """A collector and a model's endpoint in one: what it was sent."""

    def __init__(self) -> None:
        self.port = 0
        self.spans: dict[bytes, Any] = {}
        self.ids: dict[tuple[str, str], bytes] = {}
        self.model_headers: dict[str, str] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:])}
        body = await reader.readexactly(int(headers["content-length"]))
        answer, kind = b"", "application/x-protobuf"
        if "/traces" in head[0]:
            self._collect(body)
        else:
            self.model_headers = headers
            answer, kind = CHUNKS, "text/event-stream"
        writer.write(
            f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(answer)}\r\n"
            "connection: close\r\n\r\n".encode()
            + answer
        )
        await writer.drain()

    def _collect(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = (
                item.value.string_value for item in resource.resource.attributes if item.key == "service.name"
            )
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans[span.span_id] = span
                    self.ids[service, span.name] = span.span_id


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """A collector and a model's endpoint."""
    endpoint = Endpoint()
    async with serving(endpoint.serve) as endpoint.port:
        yield endpoint


@pytest.mark.timeout(90)
async def test_a_turn_is_one_trace(pool: Pool, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Client, request, attempt, call of the model: each the child of the one before."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{endpoint.port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    api = await pool.api(TRACING="true")
    await pool.worker(TRACING="true", LLM_BASE_URL=f"http://127.0.0.1:{endpoint.port}/v1", LLM_MODEL="m")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", trust_env=False) as client:
        posted = await client.post(
            "/v1/sessions/s/turns",
            json={"input": "Why is the sea salty?"},
            headers={"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01"},
        )
        assert posted.status_code == 202
        turn = (await client.get("/v1/turns/s.1?wait=20")).json()
    assert (turn["status"], turn["output"]) == ("completed", "salt")

    way = [
        ("turnpool-api", "POST /v1/sessions/{session_id}/turns"),
        ("turnpool-worker", "turn"),
        ("turnpool-worker", "chat m"),
    ]

    async def all_there() -> bool:
        return set(way) <= set(endpoint.ids)

    await wait_until(all_there, 10)
    request, attempt, call = (endpoint.spans[endpoint.ids[name]] for name in way)
    assert {span.trace_id.hex() for span in (request, attempt, call)} == {TRACE}
    assert request.parent_span_id.hex() == CLIENT_SPAN
    # FastAPI has a span of its own for the route's function between the two.
    parent = endpoint.spans[attempt.parent_span_id]
    assert request.span_id in (parent.span_id, parent.parent_span_id)
    assert call.parent_span_id == attempt.span_id
    assert endpoint.model_headers["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    attributes = {item.key: item.value.string_value for item in attempt.attributes}
    assert (attributes["turnpool.turn"], attributes["turnpool.result"]) == ("s.1", "completed")
