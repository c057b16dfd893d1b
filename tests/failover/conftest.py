"""Fixtures: a cluster, and a set of Sentinels."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conftest import AGENTS
from tests.failover.servers import ClusterServers, SentinelServers
from turnpool import keys
from turnpool.settings import Settings
from turnpool.store.store import Store


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    """A cluster for all tests of this process, since one takes some seconds to make."""
    cluster = ClusterServers(tmp_path_factory.mktemp("cluster"))

    async def prepare() -> None:
        await cluster.prepare()
        await cluster.hang_up()

    async def close() -> None:
        await cluster.close()

    try:
        asyncio.run(prepare())
        yield cluster
    finally:
        asyncio.run(close())


@pytest.fixture
async def cluster(shared_cluster: ClusterServers) -> AsyncIterator[ClusterServers]:
    """The cluster, whole and empty. After the test every key has to have a time to live or be an index."""
    await shared_cluster.repair()
    await shared_cluster.empty()
    yield shared_cluster
    for server in await shared_cluster.primaries():
        found = [key async for key in server.client.scan_iter("*") if await server.client.ttl(key) == -1]
        # `turnpool:{<partition>}:<name>`
        names = [key.decode().partition("}:")[2] for key in found]
        assert [name for name in names if not name.startswith(keys.INDEXES)] == []
    await shared_cluster.hang_up()


@pytest.fixture
def settings(cluster: ClusterServers, redis_url: str) -> Settings:
    """Settings for the cluster, with short times."""
    return Settings(
        redis_url=cluster.url, broker_url=redis_url, agents=AGENTS, lease_seconds=0.5, metrics_port=0
    )


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """A store on the cluster."""
    store = Store.connect(settings)
    yield store
    await store.close()


@pytest.fixture
async def sentinels(tmp_path: Path) -> AsyncIterator[SentinelServers]:
    """A primary, two replicas and three Sentinels of this test alone."""
    async with SentinelServers(tmp_path) as servers:
        yield servers
