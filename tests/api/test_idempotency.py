"""Idempotency-Key."""

import asyncio

import httpx
import pytest

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.sse import stream
from tests.api.worker import claim, claim_soon
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def keyed(client: httpx.AsyncClient, key: str, session: str = "s", **fields: object) -> httpx.Response:
    """Post a turn with a key."""
    body = {"input": "hi"} | fields
    return await client.post(f"/v1/sessions/{session}/turns", json=body, headers={"Idempotency-Key": key})


async def test_the_same_key_and_body_give_the_same_turn(client: httpx.AsyncClient) -> None:
    """The second answer says that it is a replay; there is one turn."""
    first, second = await keyed(client, "k"), await keyed(client, "k")
    assert (first.status_code, second.status_code) == (202, 202)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["location"] == first.headers["location"] == "/v1/turns/s.1"
    assert len((await client.get("/v1/sessions/s/turns")).json()["turns"]) == 1


async def test_a_body_that_means_the_same_is_the_same(client: httpx.AsyncClient) -> None:
    """The order of members and spelled-out defaults make no other body."""
    await keyed(client, "k", params={"a": 1, "b": 2})
    again = await keyed(client, "k", params={"b": 2, "a": 1}, priority=5)
    assert (again.status_code, again.json()["id"]) == (202, "s.1")


async def test_another_body_is_refused(client: httpx.AsyncClient) -> None:
    """422, and no second turn."""
    await keyed(client, "k")
    other = await keyed(client, "k", input="something else")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert len((await client.get("/v1/sessions/s/turns")).json()["turns"]) == 1


async def test_twenty_posts_at_once_with_one_key_make_one_turn(client: httpx.AsyncClient) -> None:
    """Exactly one of them is no replay."""
    answers = await asyncio.gather(*(keyed(client, "k") for _ in range(20)))
    assert {answer.json()["id"] for answer in answers} == {"s.1"}
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


@pytest.mark.parametrize(("length", "status"), [(255, 202), (256, 422)])
async def test_a_key_has_at_most_255_characters(client: httpx.AsyncClient, length: int, status: int) -> None:
    """One more is refused, and nothing is stored."""
    answer = await keyed(client, "k" * length)
    assert answer.status_code == status
    if status == 422:
        assert answer.json()["code"] == "idempotency_key_too_long"
        assert (await client.get("/v1/sessions/s")).status_code == 404


async def test_a_key_counts_in_its_session_only(client: httpx.AsyncClient) -> None:
    """The same key in another session is another turn."""
    assert (await keyed(client, "k", "a")).json()["id"] == "a.1"
    assert (await keyed(client, "k", "b")).json()["id"] == "b.1"


async def test_a_key_counts_for_its_tenant_only(serve: Serve) -> None:
    """A tenant that uses another's session id and key gets a turn of its own."""
    api = serve(api_keys="ann:a-key,bob:b-key")
    async with client_of(api, "a-key") as ann, client_of(api, "b-key") as bob:
        assert (await keyed(ann, "k")).status_code == 202
        answer = await keyed(bob, "k")
        assert answer.status_code == 202
        assert "idempotent-replayed" not in answer.headers


async def test_a_replay_is_not_rejected_as_busy(client: httpx.AsyncClient, store: Store) -> None:
    """The turn in the way of a replay is the very one it asks for."""
    first = await keyed(client, "k", on_busy="reject")
    await claim(store)
    again = await keyed(client, "k", on_busy="reject")
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


async def test_a_replay_streams_the_turn_from_its_start(client: httpx.AsyncClient, store: Store) -> None:
    """A client that lost its stream before the first event posts again and has it all."""
    await keyed(client, "k")
    run = await claim(store)
    await run.say("hello")
    await run.complete()
    options = {"json": {"input": "hi"}, "headers": {"Idempotency-Key": "k", "Accept": "text/event-stream"}}
    async with stream(client, "/v1/sessions/s/turns", method="POST", **options) as events:
        assert events.response.headers["idempotent-replayed"] == "true"
        kinds = [event.kind for event in await events.rest()]
    assert kinds == ["turn.queued", "turn.in_progress", "turn.output_text.delta", "turn.completed"]


async def test_an_empty_key_is_none(client: httpx.AsyncClient) -> None:
    """Two posts with an empty key are two turns."""
    await keyed(client, "")
    assert (await keyed(client, "")).json()["id"] == "s.2"


async def test_chat_takes_a_key_too(client: httpx.AsyncClient, store: Store) -> None:
    """A chat that is sent again when its turn has ended has the answer at once."""
    headers = {"Idempotency-Key": "k"}
    chatting = asyncio.create_task(client.post("/chat/s", json={"message": "hi"}, headers=headers))
    run = await claim_soon(store)
    await run.say("hello")
    await run.complete()
    assert (await chatting).json() == {"response": "hello"}
    again = await asyncio.wait_for(client.post("/chat/s", json={"message": "hi"}, headers=headers), 5)
    assert again.json() == {"response": "hello"}
    assert (await post(client)).json()["id"] == "s.2"
