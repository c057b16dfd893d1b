"""POST /chat: one call, one answer."""

import asyncio

import httpx
import pytest

from tests.api.clients import client_of
from tests.api.conftest import Serve
from tests.api.worker import claim_soon
from tests.conftest import wait_until
from turnpool.store import Store

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


async def test_chat_on_a_server_that_ends_does_not_call_the_turn_failed(serve: Serve, store: Store) -> None:
    """The turn goes on, so the client is told which one it is and to come back, not that it failed."""
    api = serve()
    async with client_of(api) as client:
        chatting = asyncio.create_task(client.post("/chat/s", json={"message": "hi"}))
        run = await claim_soon(store)
        await asyncio.to_thread(api.stop)
        answer = await chatting
    assert (answer.status_code, answer.json()["code"]) == (503, "turn_unfinished")
    assert answer.json()["turn_id"] == "s.1"
    assert answer.headers["retry-after"]
    await run.say("still here")


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
