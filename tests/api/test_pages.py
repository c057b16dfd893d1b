"""Answers that are paged: bounded in number and in bytes, without gap or double."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx
import orjson
import pytest

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.worker import claim
from turnpool import keys
from turnpool.store.pages import PAGE_BYTES, PAGES_AT_ONCE
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio

# What an answer has around the bytes that are counted.
AROUND = 100_000


async def add_messages(store: Store, *sizes: int) -> list[str]:
    """Messages of these sizes, numbered, in session s; gives their contents."""
    contents = [f"{n}:{'x' * size}" for n, size in enumerate(sizes)]
    stored = [orjson.dumps({"role": "user", "content": content}) for content in contents]
    name = keys.messages(store.prefix, "default:s")
    await store.redis.rpush(name, *stored)
    await store.redis.expire(name, 100)
    return contents


async def pages(client: httpx.AsyncClient, path: str, **params: Any) -> list[dict[str, Any]]:
    """All pages of a list; each is as large as a page may be, at most."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await client.get(path, params=params)
        assert answer.status_code == 200
        found.append(answer.json())
        if found[-1]["next_cursor"] is None:
            return found
        params["after" if "events" in path else "cursor"] = found[-1]["next_cursor"]


def contents_of(found: list[dict[str, Any]]) -> list[str]:
    """What the messages of all pages say."""
    return [message["content"] for page in found for message in page["messages"]]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 3, 7, 8, 1000])
async def test_pages_of_messages_have_no_gap_and_no_double(
    client: httpx.AsyncClient, store: Store, limit: int, order: str
) -> None:
    """The oldest first, or the newest, whatever the size of a page."""
    await client.post("/v1/sessions", json={"id": "s"})
    contents = await add_messages(store, *[10] * 7)
    found = await pages(client, "/v1/sessions/s", limit=limit, order=order)
    assert contents_of(found) == (contents if order == "asc" else contents[::-1])
    assert len(found) == -(-7 // limit)


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_cursor_stays_where_it_is_while_messages_are_added(
    client: httpx.AsyncClient, store: Store, order: str
) -> None:
    """The next page goes on after the last one; forward it has the new messages too."""
    await client.post("/v1/sessions", json={"id": "s"})
    contents = await add_messages(store, *[10] * 6)
    first = (await client.get("/v1/sessions/s", params={"limit": 3, "order": order})).json()
    contents += await add_messages(store, 20, 20)
    rest = await pages(client, "/v1/sessions/s", limit=3, order=order, cursor=first["next_cursor"])
    if order == "asc":
        assert contents_of([first, *rest]) == contents
    else:
        assert contents_of([first, *rest]) == contents[5::-1]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(
    "sizes", [[900_000] * 4, [100_000] * 35, [10] * 50 + [900_000] * 3, [3_000_000, 10, 10], [10, 3_000_000]]
)
async def test_a_page_of_messages_is_bounded_in_bytes(
    client: httpx.AsyncClient, store: Store, sizes: list[int], order: str
) -> None:
    """About a megabyte, or one larger message alone; all come, in order."""
    await client.post("/v1/sessions", json={"id": "s"})
    contents = await add_messages(store, *sizes)
    found = await pages(client, "/v1/sessions/s", limit=1000, order=order)
    assert contents_of(found) == (contents if order == "asc" else contents[::-1])
    for page in found:
        assert len(page["messages"]) == 1 or len(orjson.dumps(page)) < PAGE_BYTES + AROUND


async def test_a_session_without_messages_is_one_empty_page(client: httpx.AsyncClient) -> None:
    """In both orders, and behind its end."""
    await client.post("/v1/sessions", json={"id": "s"})
    queries: list[dict[str, str]] = [{}, {"order": "desc"}, {"cursor": "5"}, {"cursor": "5", "order": "desc"}]
    for params in queries:
        page = (await client.get("/v1/sessions/s", params=params)).json()
        assert (page["messages"], page["next_cursor"]) == ([], None)


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 1001}, {"cursor": -1}, {"cursor": "x"}, {"cursor": 2**31}, {"order": "up"}],
)
async def test_a_wrong_page_of_messages_is_refused(client: httpx.AsyncClient, params: dict[str, Any]) -> None:
    """422 names the parameter."""
    await client.post("/v1/sessions", json={"id": "s"})
    answer = await client.get("/v1/sessions/s", params=params)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"query.{next(iter(params))}")


async def test_a_list_of_turns_has_no_bodies_unless_asked(client: httpx.AsyncClient, store: Store) -> None:
    """`include` names them, once or several times; what a client sent comes back as it was."""
    body = {
        "input": [{"role": "user", "content": "hé\nllo"}],
        "params": {"p": [1, None]},
        "metadata": {"m": "ü"},
    }
    await client.post("/v1/sessions/s/turns", json=body)
    run = await claim(store)
    await run.say("answer")
    await run.complete()
    whole = (await client.get("/v1/turns/s.1")).json()
    bodies = {"input", "output", "params", "metadata"}
    for include in ([], ["output"], ["input", "metadata"], sorted(bodies)):
        page = (await client.get("/v1/sessions/s/turns", params={"include": include})).json()
        wanted = {name: value for name, value in whole.items() if name not in bodies - set(include)}
        assert page == {"turns": [wanted], "next_cursor": None}
    wrong = await client.get("/v1/sessions/s/turns", params={"include": "messages"})
    assert wrong.status_code == 422


async def test_a_turn_without_an_answer_yet_lists_none(client: httpx.AsyncClient) -> None:
    """`output` is null, as in the turn itself."""
    await post(client)
    page = (await client.get("/v1/sessions/s/turns", params={"include": "output"})).json()
    assert page["turns"][0]["output"] is None


@pytest.mark.parametrize("include", ["input", "params", "metadata"])
async def test_a_list_of_turns_with_bodies_is_bounded_in_bytes(
    client: httpx.AsyncClient, include: str
) -> None:
    """Some large turns a page, all of them in the end."""
    for _ in range(7):
        large = "x" * 400_000
        body: dict[str, object] = {include: large if include == "input" else {"x": large}}
        await client.post("/v1/sessions/s/turns", json={"input": "hi"} | body)
    found = await pages(client, "/v1/sessions/s/turns", limit=100, include=include)
    assert [turn["id"] for page in found for turn in page["turns"]] == [f"s.{n}" for n in range(7, 0, -1)]
    assert [len(page["turns"]) for page in found] == [2, 2, 2, 1]


async def test_turns_that_have_expired_end_no_list(client: httpx.AsyncClient, store: Store) -> None:
    """A page is filled with the turns behind them."""
    for _ in range(9):
        await post(client)
    await store.redis.delete(*(keys.turn(store.prefix, f"default:s.{n}") for n in (8, 7, 6, 3)))
    found = await pages(client, "/v1/sessions/s/turns", limit=2)
    assert [[turn["id"] for turn in page["turns"]] for page in found] == [
        ["s.9", "s.5"],
        ["s.4", "s.2"],
        ["s.1"],
    ]


async def test_a_list_of_sessions_has_no_metadata_unless_asked(client: httpx.AsyncClient) -> None:
    """`include=metadata` gives it."""
    await client.post("/v1/sessions", json={"id": "s", "metadata": {"a": 1}})
    (listed,) = (await client.get("/v1/sessions")).json()["sessions"]
    assert set(listed) == {"id", "created_at", "active_turn"}
    (listed,) = (await client.get("/v1/sessions", params={"include": "metadata"})).json()["sessions"]
    assert listed["metadata"] == {"a": 1}


@pytest.mark.parametrize(("size", "of_page"), [(400_000, 2), (90_000, 11), (990_000, 1)])
async def test_a_list_of_sessions_with_metadata_is_bounded_in_bytes(
    client: httpx.AsyncClient, size: int, of_page: int
) -> None:
    """Each session comes once, as many as fit in a page."""
    names = [f"s{i}" for i in range(12)]
    for name in names:
        await client.post("/v1/sessions", json={"id": name, "metadata": {"x": "x" * size}})
    found = await pages(client, "/v1/sessions", limit=100, include="metadata")
    assert sorted(session["id"] for page in found for session in page["sessions"]) == sorted(names)
    assert max(len(page["sessions"]) for page in found) == of_page


@pytest.mark.parametrize(("size", "limit"), [(10, 3), (10, 100), (300_000, 1000), (2_000_000, 1000)])
async def test_the_log_as_json_is_paged(
    client: httpx.AsyncClient, store: Store, size: int, limit: int
) -> None:
    """As many events as asked for, or as fit; the cursor is the `after` of the next page."""
    await post(client)
    run = await claim(store)
    for _ in range(8):
        await run.say("x" * size)
    running = await pages(client, "/v1/turns/s.1/events", follow="false", limit=limit)
    assert running[-1] == {"events": [], "next_cursor": None}
    await run.complete()
    found = await pages(client, "/v1/turns/s.1/events", follow="false", limit=limit)
    assert [event["seq"] for page in found for event in page["events"]] == list(range(1, 12))
    for page in found:
        assert len(page["events"]) <= limit
        assert len(page["events"]) == 1 or len(orjson.dumps(page)) < PAGE_BYTES + AROUND


@pytest.mark.parametrize("most", [1, 1000, 50_000, 10**6])
@pytest.mark.parametrize("sizes", [[10] * 300, [5_000] * 40, [10] * 100 + [200_000] * 5 + [10] * 50])
async def test_a_page_of_the_log_is_bounded_in_bytes(
    client: httpx.AsyncClient, store: Store, sizes: list[int], most: int
) -> None:
    """One event at least, else no more bytes than asked for, and not much less while there are more."""
    await post(client)
    run = await claim(store)
    for start in range(0, len(sizes), 50):
        await run.say(*("x" * size for size in sizes[start : start + 50]))
    log, read = await store.frames("s.1", "default", 0, 10**9, 10**6), 0
    assert len(log) == run.seq
    while read < run.seq:
        page = await store.frames("s.1", "default", read, most)
        assert page == log[read : read + len(page)]
        assert page
        assert len(page) == 1 or sum(map(len, page)) <= most
        read += len(page)
        if read < run.seq and len(page) < 500:
            assert sum(map(len, page)) + len(log[read]) > most


async def test_another_tenants_pages_are_not_found(store: Store, client: httpx.AsyncClient) -> None:
    """The store itself gives no page of a session that is not the tenant's."""
    await post(client)
    for read in (store.message_page("s", "other", 10), store.turns("s", "other", 10, None)):
        with pytest.raises(Exception, match="There is no session 's'"):
            await read


@pytest.mark.parametrize(
    "path",
    [
        "/v1/sessions?include=metadata",
        "/v1/sessions/s",
        "/v1/sessions/s/turns",
        "/v1/turns/s.1/events?follow=false",
    ],
)
async def test_large_pages_are_read_a_few_at_once(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The next ones wait; while the store hangs they are told that it is away, and not kept for minutes."""
    monkeypatch.setattr("turnpool.store.pages.SLOT_SECONDS", 0.2)
    api = serve()
    async with client_of(api) as client:
        await post(client)
        async with AsyncExitStack() as taken:
            for _ in range(PAGES_AT_ONCE):
                await taken.enter_async_context(api.context.store.page_slot())
            kept = await client.get(path)
            assert (kept.status_code, kept.json()["code"]) == (503, "redis_away")
            assert "retry-after" in kept.headers
        monkeypatch.setattr("turnpool.store.pages.SLOT_SECONDS", 10)
        answers = await asyncio.gather(*(client.get(path) for _ in range(5 * PAGES_AT_ONCE)))
        assert {answer.status_code for answer in answers} == {200}
