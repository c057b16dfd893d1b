"""Several pools on one server, and processes that do not belong to a pool."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.processes import Pool, Process
from tests.acceptance.sse import Frame, check_dense, post_turn, request, run_turn, text_of, words
from tests.conftest import wait_until
from tests.failover.servers import HOST, Server, free_ports
from turnpool import keys
from turnpool.store.membership import SCHEMA

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

SCRIPTS = ("turnpool-api", "turnpool-worker")
RECORD = keys.pool(keys.prefix("turnpool", "0"))


def turn(tokens: int = 20) -> dict[str, object]:
    """A turn for the simulated agent."""
    return {"input": "hello", "agent": "simulated", "params": {"tokens": tokens}}


@pytest.fixture(params=["databases", "namespaces"])
async def pools(
    tmp_path: Path, redis_url: str, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Pool, Pool]]:
    """Two pools on one server, apart by database or by namespace."""
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    if request.param == "databases":
        made = (Pool(folders[0], redis_url), Pool(folders[1], redis_url.removesuffix("0") + "1"))
    else:
        made = (Pool(folders[0], redis_url, NAMESPACE="a"), Pool(folders[1], redis_url, NAMESPACE="b"))
    yield made
    for pool in made:
        await pool.close()


async def test_no_text_crosses_pools(pools: tuple[Pool, Pool]) -> None:
    """The same session in two pools: each client gets its own answer, and each worker runs its own turns."""
    apis = [await pool.api() for pool in pools]
    for pool in pools:
        await pool.worker()
    streams = await asyncio.gather(
        run_turn(apis[0].port, "user-1", turn(100)), run_turn(apis[1].port, "user-1", turn(30))
    )
    for frames, count in zip(streams, (100, 30), strict=True):
        check_dense(frames)
        assert text_of(frames) == frames[-1].data["output"] == words(count)
    for api in apis:
        state = await (await request(api.port, "GET", "/v1/pool")).body()
        assert len(state["workers"]) == 1


async def test_a_stream_hears_nothing_of_another_pool(pools: tuple[Pool, Pool]) -> None:
    """A client that waits in one pool gets no event while the other pool answers the same session."""
    a, b = pools
    api_a, api_b = await a.api(), await b.api()
    waiting = await post_turn(api_a.port, "user-1", turn(5))
    await b.worker()
    await run_turn(api_b.port, "user-1", turn(50))
    await a.worker()
    frames: list[Frame] = [frame async for frame in waiting.frames()]
    check_dense(frames)
    assert text_of(frames) == words(5)


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_process_that_does_not_fit_ends_with_one_line(pool: Pool, script: str) -> None:
    """Its release does not know the store's schema."""
    await pool.store.redis.hset(RECORD, mapping={"schema": SCHEMA + 1, "id": "x"})
    process = pool.start(Process, script)
    assert await process.exit() == 2
    lines = process.log.read_text().splitlines()
    assert len(lines) == 1
    assert f"the store has schema {SCHEMA + 1}" in lines[0]


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_process_that_started_without_redis_checks_later(tmp_path: Path, script: str) -> None:
    """Redis is away at the start; when it is back with another schema the process ends with one line."""
    server = Server(tmp_path, free_ports(1)[0], "--appendonly", "yes", "--appendfsync", "always")
    pool = Pool(tmp_path, f"redis://{HOST}:{server.port}/0")
    try:
        await wait_until(server.answers)
        await server.client.hset(RECORD, mapping={"schema": SCHEMA + 1, "id": "x"})
        server.kill()
        process = pool.start(Process, script)

        async def tried() -> bool:
            return "pool_not_joined" in process.log.read_text()

        await wait_until(tried, 20)
        assert process.status is None
        server.start()
        assert await process.exit() == 2
        assert f"turnpool: TURNPOOL_REDIS_URL: the store has schema {SCHEMA + 1}" in process.log.read_text()
    finally:
        await pool.close()
        await server.close()
