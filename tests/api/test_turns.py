"""Routes of turns."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from tests.api.clients import post
from tests.api.sse import seqs, stream
from tests.api.worker import claim
from tests.conftest import wait_until
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_a_posted_turn_is_accepted_and_found_at_its_location(client: httpx.AsyncClient) -> None:
    """202 names where the turn is, with all that was posted."""
    body: dict[str, Any] = {
        "params": {"tokens": 3},
        "metadata": {"é": 1},
        "priority": 2,
        "deadline_seconds": 5,
    }
    posted = await post(client, agent="simulated", **body)
    assert (posted.status_code, posted.headers["location"]) == (202, "/v1/turns/s.1")
    turn = (await client.get(posted.headers["location"])).json()
    assert turn == posted.json()
    assert turn["status"] == "queued"
    assert turn["input"] == [{"role": "user", "content": "hi"}]
    assert {name: turn[name] for name in ("params", "metadata", "priority")} == {
        name: body[name] for name in ("params", "metadata", "priority")
    }
    assert turn["deadline_at"] - turn["created_at"] == 5
    assert (turn["agent"], turn["queue"], turn["attempt"]) == ("simulated", "turns", 0)
    assert turn["output"] is turn["usage"] is turn["error"] is turn["ended_at"] is None


async def test_a_turn_of_messages_keeps_them_whole(client: httpx.AsyncClient, store: Store) -> None:
    """Members beyond role and content are passed to the agent, and no member is made up."""
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "ann"},
    ]
    assert (await post(client, input=messages)).json()["input"] == messages
    assert (await claim(store)).input == messages


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", "a\u2028b\u2029c", "a\x85b\x0bc\x1cd", "日本語 🎉", '"\\u0000"'], ids=ascii
)
async def test_any_text_comes_through_unchanged(client: httpx.AsyncClient, store: Store, text: str) -> None:
    """Line separators of every kind, quotes and many alphabets are only text."""
    posted = await post(client, input=text)
    assert posted.status_code == 202
    assert posted.json()["input"][0]["content"] == text
    assert (await claim(store)).input[0]["content"] == text


async def test_a_posted_turn_wakes_a_worker(client: httpx.AsyncClient, store: Store) -> None:
    """One Celery message per ready turn; one that waits behind another makes none."""
    for session in ("a", "b", "a"):
        assert (await post(client, session)).status_code == 202

    async def two_wake_ups() -> bool:
        return int(await store.redis.llen("turnpool:turns")) == 2

    await wait_until(two_wake_ups)


async def test_a_post_that_accepts_event_streams_is_answered_by_the_stream(
    client: httpx.AsyncClient, store: Store
) -> None:
    """200 with the events from the first on, and where they can be read again."""
    options = {"json": {"input": "hi"}, "headers": {"Accept": "text/event-stream"}}
    async with stream(client, "/v1/sessions/s/turns", method="POST", **options) as events:
        assert events.response.headers["location"] == "/v1/turns/s.1/events"
        assert (await events.next()).kind == "turn.queued"
        run = await claim(store)
        await run.say("he", "llo")
        await run.complete()
        rest = await events.rest()
    assert seqs(rest) == [2, 3, 4, 5]
    assert rest[-1].kind == "turn.completed"
    again = await client.get("/v1/turns/s.1/events")
    assert again.text.count("\nevent: ") == 5


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_pages_of_turns_have_no_gap_and_no_double(client: httpx.AsyncClient, limit: int) -> None:
    """Each turn comes once, newest first, whatever the size of a page."""
    for _ in range(7):
        await post(client)
    seen: list[str] = []
    params = {"limit": str(limit)}
    while True:
        page = (await client.get("/v1/sessions/s/turns", params=params)).json()
        assert len(page["turns"]) <= limit
        seen += [turn["id"] for turn in page["turns"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == [f"s.{n}" for n in range(7, 0, -1)]


async def test_a_session_without_turns_lists_none(client: httpx.AsyncClient) -> None:
    """An empty page is the last one."""
    await client.post("/v1/sessions", json={"id": "s"})
    assert (await client.get("/v1/sessions/s/turns")).json() == {"turns": [], "next_cursor": None}


async def test_turns_of_an_unknown_session_are_not_found(client: httpx.AsyncClient) -> None:
    """A session that never was has no list."""
    answer = await client.get("/v1/sessions/nobody/turns")
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")


@pytest.mark.parametrize("turn_id", ["s.1", "s.2", "other.1"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/events"), ("POST", "/cancel")])
async def test_an_unknown_turn_is_not_found(
    client: httpx.AsyncClient, method: str, path: str, turn_id: str
) -> None:
    """404 says which one, on every route of a turn."""
    answer = await client.request(method, f"/v1/turns/{turn_id}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "turn_not_found")
    assert turn_id in answer.json()["detail"]


async def test_a_wait_ends_with_the_turn(client: httpx.AsyncClient, store: Store) -> None:
    """?wait= answers as soon as the turn has ended, with its output."""
    await post(client)
    run = await claim(store)
    waiting = asyncio.create_task(client.get("/v1/turns/s.1", params={"wait": 60}))
    await run.say("hello")
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    await run.complete()
    turn = (await asyncio.wait_for(waiting, 5)).json()
    assert (turn["status"], turn["output"]) == ("completed", "hello")
    assert turn["usage"] == {"input_tokens": 1, "output_tokens": 2}
    assert turn["created_at"] <= turn["started_at"] <= turn["ended_at"]


async def test_a_wait_gives_the_unfinished_turn_after_its_time(client: httpx.AsyncClient) -> None:
    """What has not ended then is no error."""
    await post(client)
    started = time.monotonic()
    answer = await client.get("/v1/turns/s.1", params={"wait": 0.3})
    assert 0.3 <= time.monotonic() - started < 3
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")


async def test_a_wait_for_an_ended_turn_answers_at_once(client: httpx.AsyncClient, store: Store) -> None:
    """There is nothing to wait for."""
    await post(client)
    await (await claim(store)).fail("broken", "It broke.")
    answer = await asyncio.wait_for(client.get("/v1/turns/s.1", params={"wait": 60}), 2)
    assert answer.json()["error"] == {"code": "broken", "message": "It broke."}


async def test_a_turn_that_ends_while_a_wait_begins_is_not_waited_for(
    client: httpx.AsyncClient, store: Store
) -> None:
    """However the end falls between the reads of a wait, it is seen at once."""
    for i in range(30):
        await post(client, f"s{i}")
        run = await claim(store)
        waiting = asyncio.create_task(client.get(f"/v1/turns/s{i}.1", params={"wait": 60}))
        await asyncio.wait([waiting], timeout=i / 10_000)
        await run.complete()
        assert (await asyncio.wait_for(waiting, 5)).json()["status"] == "completed"


async def test_a_waiting_turn_is_cancelled_at_once(client: httpx.AsyncClient) -> None:
    """202 with the turn as it is then; a second time it had ended: 200."""
    await post(client)
    cancelled = await client.post("/v1/turns/s.1/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "cancelled")
    again = await client.post("/v1/turns/s.1/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


async def test_a_running_turn_is_cancelled_by_its_worker(client: httpx.AsyncClient, store: Store) -> None:
    """202 while it still runs; the worker hears of it with its next renewal."""
    await post(client)
    run = await claim(store)
    cancelled = await client.post("/v1/turns/s.1/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (202, "in_progress")
    assert (await store.redis.hget("turnpool:{0}:turn:default:s.1", "cancel")) == b"1"
    await run.cancelled()
    assert (await client.post("/v1/turns/s.1/cancel")).status_code == 200


async def test_cancelling_the_head_of_a_session_wakes_a_worker_for_the_next(
    client: httpx.AsyncClient, store: Store
) -> None:
    """The turn behind a cancelled one is ready, and there is a wake-up for it."""
    await post(client)
    await post(client)
    await client.post("/v1/turns/s.1/cancel")

    async def two_wake_ups() -> bool:
        return int(await store.redis.llen("turnpool:turns")) == 2

    await wait_until(two_wake_ups)
    assert (await claim(store)).id == "s.2"


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function"])
async def test_every_role_of_the_chat_format_is_taken(client: httpx.AsyncClient, role: str) -> None:
    """As OpenAI has them; another is named."""
    message = {"role": role, "content": "x", "name": "n"}
    accepted = await post(client, input=[message])
    assert accepted.status_code == 202
    turn = (await client.get(f"/v1/turns/{accepted.json()['id']}")).json()
    assert (turn["input"], turn["finish_reason"]) == ([message], None)
    refused = await post(client, input=[message | {"role": "robot"}])
    assert refused.status_code == 422
