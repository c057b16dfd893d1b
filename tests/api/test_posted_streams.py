"""The stream that a post answers with."""

import asyncio
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

from tests.api.clients import client_of
from tests.api.conftest import Serve
from tests.api.sse import Stream, seqs, stream
from tests.api.worker import claim, claim_soon
from tests.conftest import wait_until
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio

PATH = "/v1/sessions/s/turns"
BODY = {"input": "hi"}
ACCEPT = {"Accept": "text/event-stream"}


def posted(client: httpx.AsyncClient) -> AbstractAsyncContextManager[Stream]:
    """A turn's stream, from its post."""
    return stream(client, PATH, method="POST", json=BODY, headers=ACCEPT)


async def test_it_hears_all_and_reads_no_log(client: httpx.AsyncClient, store: Store) -> None:
    """It listens before the turn is accepted."""
    await store.redis.config_resetstat()
    async with posted(client) as events:
        run = await claim(store)
        await run.say("a", "b")
        await run.complete()
        assert seqs(await events.rest()) == [1, 2, 3, 4, 5]
    assert "cmdstat_xrange" not in await store.redis.info("commandstats")


@pytest.mark.slow
async def test_it_reads_the_log_where_it_cannot_listen(serve: Serve, store: Store) -> None:
    """No connection for pub/sub: the turn is accepted all the same, and its stream is whole."""
    async with client_of(serve()) as client:
        await store.redis.execute_command("ACL", "SETUSER", "default", "-ssubscribe")
        try:
            async with posted(client) as events:
                run = await claim_soon(store)
                await run.say("a")
                await run.complete()
                assert seqs(await asyncio.wait_for(events.rest(), 20)) == [1, 2, 3, 4]
        finally:
            await store.redis.execute_command("ACL", "SETUSER", "default", "+ssubscribe")


async def test_a_refused_post_listens_no_longer(client: httpx.AsyncClient, store: Store) -> None:
    """Its session is left again."""

    async def channels() -> int:
        return len(await store.redis.execute_command("PUBSUB", "SHARDCHANNELS"))

    await client.post(PATH, json=BODY)
    before = await channels()
    refused = await client.post(PATH, json=BODY | {"on_busy": "reject"}, headers=ACCEPT)
    assert refused.status_code == httpx.codes.CONFLICT

    async def left() -> bool:
        return await channels() == before

    await wait_until(left, 5)
