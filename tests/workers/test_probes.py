"""A worker's HTTP port (`turnpool_workers/probes.py`)."""

import asyncio
import socket
import threading
from collections.abc import Callable

import httpx
import pytest

from tests.conftest import wait_until
from turnpool.errors import SettingsError
from turnpool.exposition import PoolMetrics
from turnpool_workers import probes
from turnpool_workers.health import Health
from turnpool_workers.probes import serve_probes

pytestmark = pytest.mark.anyio


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def health() -> Health:
    """Of a worker with short times, whose loop has not started."""
    return Health(lease_seconds=60, hang_seconds=6)


@pytest.fixture
def get(health: Health) -> Callable[[str], httpx.Response]:
    """Asks a server for a path."""
    port = free_port()
    serve_probes("127.0.0.1", port, health, PoolMetrics("turnpool"))
    return lambda path: httpx.get(f"http://127.0.0.1:{port}{path}", timeout=10)


async def ask(get: Callable[[str], httpx.Response], path: str) -> tuple[int, str]:
    """Status and text of an answer, while this loop goes on."""
    answer = await asyncio.to_thread(get, path)
    return answer.status_code, answer.text


async def test_a_worker_is_ready_once_all_it_needs_is_there(
    get: Callable[[str], httpx.Response], health: Health
) -> None:
    """Its loop beats, the store takes its leases, the broker is connected, and it does not drain."""
    assert await ask(get, "/readyz") == (503, "the worker is starting\n")
    health.start(asyncio.get_running_loop())
    assert await ask(get, "/readyz") == (503, "the store does not take the worker's leases\n")
    health.renewed()
    assert await ask(get, "/readyz") == (503, "the broker is not connected\n")
    health.broker_connected(connected=True)
    assert await ask(get, "/readyz") == (200, "ok\n")
    health.draining = True
    assert await ask(get, "/readyz") == (503, "the worker is draining\n")


async def test_a_worker_without_redis_is_alive(get: Callable[[str], httpx.Response], health: Health) -> None:
    """A restart would not bring Redis back."""
    assert await ask(get, "/healthz") == (200, "ok\n")
    health.start(asyncio.get_running_loop())
    assert await ask(get, "/healthz") == (200, "ok\n")


async def test_a_worker_whose_loop_stands_still_is_neither_ready_nor_alive(
    get: Callable[[str], httpx.Response], health: Health
) -> None:
    """The probes' thread answers while the loop does not."""
    loop = asyncio.new_event_loop()
    health.start(loop)
    loop.close()

    async def ill() -> bool:
        return (await ask(get, "/healthz"))[0] == 503

    await wait_until(ill)
    status, text = await ask(get, "/readyz")
    assert (status, text.startswith("the event loop has stood still for ")) == (503, True)


async def test_metrics_are_prometheus_text(get: Callable[[str], httpx.Response]) -> None:
    """As before, on the same port; other paths are 404 without a word about the server."""
    answer = await asyncio.to_thread(get, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "turnpool_worker_hung" in answer.text
    assert "server" not in answer.headers
    assert await ask(get, "/other") == (404, "404\n")


async def test_connections_cost_no_threads_and_are_limited(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent ones, those with half a head and those too many are closed; the next probe is answered."""
    monkeypatch.setattr(probes, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(probes, "IDLE_SECONDS", 0.5)
    port = free_port()
    serve_probes("127.0.0.1", port, health, PoolMetrics("turnpool"))
    before = threading.active_count()
    streams = []
    for n in range(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((b"", b"GET /healthz HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)[n % 3])
        streams.append((reader, writer))
    assert threading.active_count() == before
    async with asyncio.timeout(10):
        for reader, writer in streams:
            # A reset is an end too: the server had more to read.
            await asyncio.gather(reader.read(), return_exceptions=True)
            writer.close()
    answer = await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/healthz")
    assert answer.status_code == 200


def test_a_port_in_use_is_a_clear_line(health: Health) -> None:
    """Whoever starts the worker sees it at once."""
    with socket.create_server(("127.0.0.1", 0)) as used, pytest.raises(SettingsError, match="METRICS_PORT"):
        serve_probes("127.0.0.1", used.getsockname()[1], health, PoolMetrics("turnpool"))
