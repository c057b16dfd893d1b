"""Every metric of the dashboard and the alerts is told by real processes, with the labels they use."""

import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.processes import Pool
from tests.acceptance.sse import post_turn, request, run_turn
from tests.conftest import wait_until
from tests.monitoring.files import queries
from tests.monitoring.promql import Metrics, problems
from turnpool.store.wakeups import WakeUps

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance, pytest.mark.timeout(120)]

LONG = {"input": "hello", "agent": "simulated", "params": {"tokens": 5000}}
SHORT = {"input": "hello", "agent": "simulated", "params": {"tokens": 3}}
UNSERVED = {"input": "hello", "agent": "missing"}
FAILS = {"input": "hello", "agent": "simulated", "params": {"tokens": 5, "fail_at": 2}}


@pytest.fixture
async def pool(tmp_path: Path, redis_url: str) -> AsyncIterator[Pool]:
    """A pool without processes yet; all it starts end with the test."""
    pool = Pool(tmp_path, redis_url)
    yield pool
    await pool.close()


async def scrape(*ports: int) -> Metrics:
    """The labels of every metric that has a sample, by the name of the sample."""
    metrics: Metrics = {}
    async with httpx.AsyncClient() as client:
        for port in ports:
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).raise_for_status().text
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    assert sample.labels["pool"] == "turnpool", sample.name
                    labels = frozenset(sample.labels)
                    # An unlabelled sample beside labelled ones would make every sum wrong.
                    assert metrics.setdefault(sample.name, labels) == labels, sample.name
    return metrics


async def take_over(pool: Pool, api: int, metrics_port: int) -> None:
    """A turn loses its worker; its stream loses Redis for a moment; another worker takes it up."""
    doomed = await pool.worker(LEASE_SECONDS="1")
    stream = (await post_turn(api, "taken", LONG)).frames()
    async for frame in stream:
        if frame.event == "turn.output_text.delta":
            break
    busy = await request(api, "POST", "/v1/sessions/taken/turns", {**SHORT, "on_busy": "reject"})
    assert (busy.status, (await busy.body())["code"]) == (409, "session_busy")
    await pool.worker(LEASE_SECONDS="1", METRICS_PORT=str(metrics_port))
    doomed.signal(signal.SIGKILL)
    await pool.store.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    async for frame in stream:
        if frame.event == "turn.restarted":
            await (await request(api, "POST", "/v1/turns/taken.1/cancel")).body()
    assert frame.event == "turn.cancelled"


async def resume(api: int) -> None:
    """A stream is read on from an id, as after a break."""
    answer = await request(api, "GET", "/v1/turns/taken.1/events", headers={"Last-Event-ID": "2"})
    ids = [frame.id async for frame in answer.frames()]
    assert ids[0] == 3


async def test_every_metric_exists_with_its_labels(pool: Pool) -> None:
    """Matchers, groupings and legends name metrics and labels that a live API or worker has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics_port = free.getsockname()[1]
    agents = "simulated=turnpool_workers.agents.simulated:agent"
    api = (await pool.api(AGENTS=f"{agents},missing=nowhere:agent")).port
    await take_over(pool, api, metrics_port)
    await resume(api)
    assert (await run_turn(api, "fails", FAILS))[-1].event == "turn.failed"
    assert (await run_turn(api, "short", SHORT))[-1].event == "turn.completed"
    await (await request(api, "POST", "/v1/sessions/unserved/turns", UNSERVED)).body()
    wakeups = WakeUps(pool.store.redis, "turnpool")
    wakeups.publish(["turns"])

    async def found() -> list[str]:
        metrics = await scrape(api, metrics_port)
        return [problem for query in queries() for problem in problems(query, metrics)]

    async def complete() -> bool:
        return not await found()

    # Some are told by loops that look once a second.
    with contextlib.suppress(TimeoutError):
        await wait_until(complete, 5)
    assert await found() == []
