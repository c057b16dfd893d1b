"""Routes of sessions."""

import httpx
import pytest

from tests.api.sse import stream
from tests.api.worker import claim
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_a_session_is_created_and_found_at_its_location(client: httpx.AsyncClient) -> None:
    """201 names where the session is, with its metadata."""
    created = await client.post("/v1/sessions", json={"id": "s", "metadata": {"a": [1, "é"]}})
    assert (created.status_code, created.headers["location"]) == (201, "/v1/sessions/s")
    got = await client.get(created.headers["location"])
    assert got.status_code == 200
    assert got.json() == created.json() | {"messages": [], "next_cursor": None}
    assert got.json()["metadata"] == {"a": [1, "é"]}
    assert got.json()["active_turn"] is None


async def test_a_session_without_an_id_gets_one(client: httpx.AsyncClient) -> None:
    """No body at all is enough."""
    created = await client.post("/v1/sessions")
    assert created.status_code == 201
    assert (await client.get(created.headers["location"])).json()["id"] == created.json()["id"]


async def test_a_session_is_created_once(client: httpx.AsyncClient) -> None:
    """The second time is a conflict, and the first one's metadata stands."""
    await client.post("/v1/sessions", json={"id": "s", "metadata": {"first": True}})
    again = await client.post("/v1/sessions", json={"id": "s"})
    assert (again.status_code, again.json()["code"]) == (409, "session_exists")
    assert (await client.get("/v1/sessions/s")).json()["metadata"] == {"first": True}


async def test_the_first_turn_creates_its_session(client: httpx.AsyncClient, store: Store) -> None:
    """A session holds the messages of its turns and names the one that is not ended."""
    await client.post("/v1/sessions/s/turns", json={"input": "hi", "agent": "simulated"})
    assert (await client.get("/v1/sessions/s")).json()["active_turn"] == "s.1"
    run = await claim(store)
    await run.say("hello")
    await run.complete()
    session = (await client.get("/v1/sessions/s")).json()
    assert session["active_turn"] is None
    assert [(m["role"], m["content"]) for m in session["messages"]] == [
        ("user", "hi"),
        ("assistant", "hello"),
    ]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
async def test_pages_of_sessions_have_no_gap_and_no_double(client: httpx.AsyncClient, limit: int) -> None:
    """Each session comes once, the last used first, whatever the size of a page."""
    names = [f"s{i}" for i in range(7)]
    for name in names:
        await client.post("/v1/sessions", json={"id": name})
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = await client.get(
            "/v1/sessions", params={"limit": limit} | ({"cursor": cursor} if cursor else {})
        )
        assert page.status_code == 200
        assert len(page.json()["sessions"]) <= limit
        seen += [session["id"] for session in page.json()["sessions"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == names


async def test_sessions_of_the_same_millisecond_are_paged_without_gap(
    client: httpx.AsyncClient, store: Store
) -> None:
    """Equal times do not hide a session behind the end of a page."""
    for i in range(5):
        await client.post("/v1/sessions", json={"id": f"s{i}"})
    names = [
        name for name, _ in await store.redis.zrange("turnpool:{0}:sessions:default", 0, -1, withscores=True)
    ]
    await store.redis.zadd("turnpool:{0}:sessions:default", dict.fromkeys(names, 1_700_000_000_000))
    seen: list[str] = []
    params: dict[str, str] = {"limit": "2"}
    while True:
        page = (await client.get("/v1/sessions", params=params)).json()
        seen += [session["id"] for session in page["sessions"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert sorted(seen) == [f"s{i}" for i in range(5)]


async def test_the_session_used_last_comes_first(client: httpx.AsyncClient) -> None:
    """A turn brings its session to the top."""
    for name in ("a", "b"):
        await client.post(f"/v1/sessions/{name}/turns", json={"input": "hi"})
    await client.post("/v1/sessions/a/turns", json={"input": "hi"})
    listed = (await client.get("/v1/sessions")).json()["sessions"]
    assert [session["id"] for session in listed] == ["a", "b"]


async def test_a_deleted_session_is_gone(client: httpx.AsyncClient) -> None:
    """204, then nothing of it is found."""
    await client.post("/v1/sessions", json={"id": "s"})
    deleted = await client.delete("/v1/sessions/s")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.get("/v1/sessions/s")).status_code == 404
    assert (await client.delete("/v1/sessions/s")).status_code == 404
    assert (await client.get("/v1/sessions")).json()["sessions"] == []


async def test_deleting_a_session_cancels_what_waits_and_runs(
    client: httpx.AsyncClient, store: Store
) -> None:
    """The worker of the running turn is told to stop, and its end is streamed."""
    for _ in range(2):
        await client.post("/v1/sessions/s/turns", json={"input": "hi"})
    run = await claim(store)
    async with (
        stream(client, "/v1/turns/s.1/events") as events,
        stream(client, "/v1/turns/s.2/events") as next_,
    ):
        await events.take(2)
        await next_.take(1)
        assert (await client.delete("/v1/sessions/s")).status_code == 204
        assert (await next_.rest())[-1].kind == "turn.cancelled"
        assert (await client.get("/v1/turns/s.1")).json()["status"] == "in_progress"
        await run.cancelled()
        assert (await events.rest())[-1].kind == "turn.cancelled"
    assert (await client.get("/v1/pool")).json()["queued"] == 0


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_session_is_not_found(client: httpx.AsyncClient, method: str) -> None:
    """404 says which one."""
    answer = await client.request(method, "/v1/sessions/nobody")
    assert (answer.status_code, answer.json()["code"]) == (404, "session_not_found")
    assert "nobody" in answer.json()["detail"]
