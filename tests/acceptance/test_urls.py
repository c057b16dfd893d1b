"""What a URL of Redis says holds in every process, or is refused by every process."""

import socket
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from tests.acceptance.processes import Pool, Process
from tests.acceptance.sse import run_turn, text_of, words
from tests.conftest import wait_until
from tests.failover.servers import Server, free_ports

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

TURN = {"input": "hello", "agent": "simulated", "params": {"tokens": 5}}
SCRIPTS = ("turnpool-api", "turnpool-worker", "turnpool-flower")


@pytest.mark.parametrize(
    "url",
    ["redis://127.0.0.1:{port}?db=3", "redis://us%2Fer:p%40%2Fw@127.0.0.1:{port}/3", "unix://{socket}?db=3"],
)
async def test_a_turn_runs_by_every_form(tmp_path: Path, url: str) -> None:
    """API, worker and Flower meet in the same database, by the same login."""
    (port,) = free_ports(1)
    path = tmp_path / "redis.sock"
    server = Server(tmp_path, port, "--unixsocket", str(path))
    pool = Pool(tmp_path, url.format(port=port, socket=path))
    try:
        await wait_until(server.answers)
        await server.client.execute_command("ACL", "SETUSER", "us/er", "on", ">p@/w", "~*", "&*", "+@all")
        api, worker = await pool.api(), await pool.worker()
        assert text_of(await run_turn(api.port, "s", TURN)) == words(5)
        assert set(await server.client.info("keyspace")) == {"db3"}
        await flower_sees(pool, worker)
    finally:
        await pool.close()
        await server.close()


async def flower_sees(pool: Pool, worker: Process) -> None:
    """Flower hears of the worker, and counts what waits in its queue."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pool.start(Process, "turnpool-flower", FLOWER_PORT=str(port), FLOWER_PASSWORD="p")
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, auth=("turnpool", "p"), trust_env=False) as flower:

        async def counts() -> bool:
            try:
                workers = (await flower.get("/api/workers?refresh=1")).json()
                queues = (await flower.get("/api/queues/length")).json()["active_queues"]
            except (httpx.TransportError, ValueError):
                return False
            known = any(name.endswith(f"-{worker.pid}") for name in workers)
            return known and queues == [{"name": "turnpool:turns", "messages": 0}]

        await wait_until(counts, 30)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("rest", ["/0?protocol=3", "/abc", "/99"])
async def test_what_is_wrong_ends_every_process_alike(
    tmp_path: Path, redis_url: str, script: str, rest: str
) -> None:
    """With the same line, and status 2."""
    # Other tests' processes may still keep the records of their pools.
    pool = Pool(tmp_path, redis_url, NAMESPACE="wrong")
    try:
        wrong = redis_url.removesuffix("/0") + rest
        process = pool.start(
            Process, script, REDIS_URL=wrong, BROKER_URL=wrong, FLOWER_PASSWORD="p", FLOWER_PORT="0"
        )
        assert await process.exit(30) == 2
        (line,) = process.log.read_text().splitlines()
        assert line.startswith(("turnpool: TURNPOOL_REDIS_URL: ", "turnpool: TURNPOOL_BROKER_URL: "))
        said = {
            "/0?protocol=3": "the option protocol",
            "/abc": "database is a number",
            "/99": "no database 99",
        }
        assert said[rest] in line
        async with Redis.from_url(redis_url) as redis:
            assert await redis.keys("*wrong*") == []
    finally:
        await pool.close()
