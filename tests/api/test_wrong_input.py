"""Wrong input of every kind: its clear error, and nothing stored."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson
import pytest

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from turnpool import keys
from turnpool.models import NewTurn
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio

TURNS = "/v1/sessions/s/turns"
JSON = {"Content-Type": "application/json"}
DEEP = '{"a":' * 500 + "1" + "}" * 500


@pytest.fixture(autouse=True)
async def nothing_is_stored(store: Store) -> AsyncIterator[None]:
    """After each of these tests there is no key of ours."""
    yield
    written = {key.decode() async for key in store.redis.scan_iter(f"{store.prefix}*")}
    # The record of the pool, and the server's own looks for lost wake-ups and deadlines.
    own = {keys.pool(store.prefix), keys.missing(store.prefix, "turns"), keys.watched(store.prefix)}
    assert written <= own


@pytest.mark.parametrize(
    "body", [b"{", b"", b"not json", b'{"input": "hi"', b"\xff\xfe", b'{"input": "\xff"}', b"[" * 100_000]
)
async def test_what_is_no_json_is_told(client: httpx.AsyncClient, body: bytes) -> None:
    """400 for a broken body, 422 for none."""
    answer = await client.post(TURNS, content=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (
        (400, "bad_json") if body else (422, "invalid_request")
    )
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", None]
)
async def test_a_wrong_content_type_is_told(client: httpx.AsyncClient, kind: str | None) -> None:
    """415 says which one is right."""
    headers = {"Content-Type": kind} if kind else {}
    answer = await client.post(TURNS, content=b'{"input": "hi"}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"input": "hi", "prompt": "x"}, "prompt"),
        ({"input": "hi", "Input": "x"}, "Input"),
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": 1}, "input"),
        ({"input": ["hi"]}, "input"),
        ({"input": [{"content": "no role"}]}, "role"),
        ({"input": [{"role": "robot", "content": "hi"}]}, "role"),
        ({"input": [{"role": "user", "content": 1}]}, "content"),
        ({"input": "hi", "priority": 10}, "priority"),
        ({"input": "hi", "priority": -1}, "priority"),
        ({"input": "hi", "priority": 1.5}, "priority"),
        ({"input": "hi", "priority": "high"}, "priority"),
        ({"input": "hi", "on_busy": "wait"}, "on_busy"),
        ({"input": "hi", "deadline_seconds": 0}, "deadline_seconds"),
        ({"input": "hi", "deadline_seconds": -5}, "deadline_seconds"),
        ({"input": "hi", "deadline_seconds": 86_401}, "deadline_seconds"),
        ({"input": "hi", "deadline_seconds": float("nan")}, "deadline_seconds"),
        ({"input": "hi", "deadline_seconds": float("inf")}, "deadline_seconds"),
        ({"input": "hi", "params": []}, "params"),
        ({"input": "hi", "params": "x"}, "params"),
        ({"input": "hi", "metadata": 5}, "metadata"),
        ({"input": "hi", "agent": 5}, "agent"),
        ("hi", "body"),
        ([], "body"),
        (None, "body"),
    ],
    ids=str,
)
async def test_a_field_that_is_wrong_is_named(client: httpx.AsyncClient, body: Any, at: str) -> None:
    """422 says where and why."""
    answer = await client.post(TURNS, content=json.dumps(body), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert at in answer.json()["detail"]
    assert answer.json()["errors"][0]["at"] in answer.json()["detail"]


@pytest.mark.parametrize(
    "value", ['"\\ud800"', "123456789012345678901234567890", DEEP, '{"\\udfff": 1}'], ids=lambda v: v[:30]
)
@pytest.mark.parametrize(
    "body",
    [
        '{"input": "hi", "params": {"a": %s}}',
        '{"input": "hi", "metadata": {"a": %s}}',
        '{"input": [{"role": "user", "content": [{"a": %s}]}]}',
        '{"input": [{"role": "user", "content": "hi", "more": %s}]}',
    ],
)
async def test_json_that_cannot_be_stored_is_told(client: httpx.AsyncClient, body: str, value: str) -> None:
    """Half a surrogate pair, a number without end, and a nest without bottom are errors of the client."""
    answer = await client.post(TURNS, content=body % value, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_field_whose_name_is_no_text_is_told(client: httpx.AsyncClient) -> None:
    """The error that names it is JSON all the same."""
    answer = await client.post(TURNS, content='{"input": "hi", "\\ud800": 1}', headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_metadata_of_a_session_that_cannot_be_stored_is_told(client: httpx.AsyncClient) -> None:
    """As with turns."""
    answer = await client.post("/v1/sessions", content='{"metadata": {"a": "\\ud800"}}', headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_an_input_with_half_a_surrogate_pair_is_told(client: httpx.AsyncClient) -> None:
    """It is no text."""
    answer = await client.post(TURNS, content='{"input": "\\ud800"}', headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_an_unknown_agent_is_told_with_those_there_are(client: httpx.AsyncClient) -> None:
    """422 names them."""
    answer = await post(client, agent="nobody")
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_agent")
    assert "chat, simulated" in answer.json()["detail"]


@pytest.mark.parametrize(
    "session", ["a%20b", "a.b", "%C3%A9", "a" * 129, "a%0A", "a%00b", "{0}", "a:b", "*"], ids=lambda v: v[:9]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/sessions/{}/turns"),
        ("GET", "/v1/sessions/{}/turns"),
        ("GET", "/v1/sessions/{}"),
        ("DELETE", "/v1/sessions/{}"),
        ("GET", "/v1/sessions/{}/events"),
        ("POST", "/chat/{}"),
    ],
)
async def test_a_wrong_session_id_is_told(
    client: httpx.AsyncClient, method: str, path: str, session: str
) -> None:
    """422 on every route."""
    body = {"message": "hi"} if path.startswith("/chat") else {"input": "hi"}
    answer = await client.request(method, path.replace("{}", session), json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "session_id" in answer.json()["detail"]


@pytest.mark.parametrize("session", ["a/b", "a%2Fb", "%2F"])
async def test_a_session_id_with_a_slash_is_no_path_of_ours(client: httpx.AsyncClient, session: str) -> None:
    """404, encoded or not."""
    answer = await client.post(f"/v1/sessions/{session}/turns", json={"input": "hi"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("session", ["a b", "", "a/b", "a" * 129, 5])
async def test_a_session_is_not_created_with_a_wrong_id(client: httpx.AsyncClient, session: object) -> None:
    """422 names the field."""
    answer = await client.post("/v1/sessions", json={"id": session})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "id" in answer.json()["detail"]


@pytest.mark.parametrize(
    "turn", ["s", "s.0", "s.x", "s.01", "s.1.1", ".1", "s.1%0A", "s." + "9" * 16, "s.-1"]
)
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/events"), ("POST", "/cancel")])
async def test_a_wrong_turn_id_is_told(client: httpx.AsyncClient, method: str, path: str, turn: str) -> None:
    """422 on every route."""
    answer = await client.request(method, f"/v1/turns/{turn}{path}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("path", [TURNS, "/chat/s", "/v1/sessions"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_two_megabytes_is_refused(
    client: httpx.AsyncClient, path: str, *, chunked: bool
) -> None:
    """413 says the limit, whether the body tells its length or not."""
    body = orjson.dumps({"input": "x" * 2_000_000})

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    content = pieces() if chunked else body
    answer = await client.post(path, content=content, headers=JSON)
    assert ("content-length" in answer.request.headers) is not chunked
    assert (answer.status_code, answer.json()["code"]) == (413, "input_too_large")
    assert "1000000 bytes" in answer.json()["detail"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_wrong_input_of_chat_is_told(client: httpx.AsyncClient) -> None:
    """Empty, missing or unknown fields."""
    for body in ({}, {"message": ""}, {"message": 1}, {"input": "hi"}, {"message": "hi", "agent": "chat"}):
        answer = await client.post("/chat/s", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", ""])
@pytest.mark.parametrize("path", ["/v1/sessions", TURNS])
async def test_a_wrong_limit_is_told(client: httpx.AsyncClient, path: str, limit: str) -> None:
    """1 to 100."""
    answer = await client.get(path, params={"limit": limit})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("wait", ["-1", "61", "x", "nan", "inf"])
async def test_a_wrong_wait_is_told(client: httpx.AsyncClient, wait: str) -> None:
    """0 to 60 seconds."""
    answer = await client.get("/v1/turns/s.1", params={"wait": wait})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def encoded(value: object) -> str:
    """A cursor as the API makes them, of anything."""
    return base64.urlsafe_b64encode(orjson.dumps(value)).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "é",
        "!!!!",
        "bm9uc2Vuc2U=",
        encoded(5),
        encoded([1]),
        encoded(["a", 0]),
        encoded([[], 0]),
        encoded(["nan", 0]),
        encoded([1, 10**18]),
        encoded([1, 2**64 - 1]),
        encoded([1, -1]),
    ],
)
async def test_a_cursor_of_sessions_that_is_not_ours_is_told(client: httpx.AsyncClient, cursor: str) -> None:
    """400 says to start anew; none of them is an error of the server."""
    answer = await client.get("/v1/sessions", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")


@pytest.mark.parametrize("cursor", ["0", "-1", "x", "1.5"])
async def test_a_cursor_of_turns_that_is_not_ours_is_told(client: httpx.AsyncClient, cursor: str) -> None:
    """It is a number."""
    answer = await client.get(TURNS, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_setting_of_the_largest_body_is_kept(serve: Serve) -> None:
    """Exactly as many bytes pass, one more does not."""
    async with client_of(serve(max_input_bytes=100)) as client:
        for size in (100, 101):
            body = b'{"inputs":"' + b"x" * (size - 13) + b'"}'
            assert len(body) == size
            answer = await client.post(TURNS, content=body, headers=JSON)
            assert answer.status_code == (422 if size == 100 else 413)


class TestOfATurn:
    """Wrong ids to resume from, of a turn that is there."""

    @pytest.fixture(autouse=True)
    async def turn(self, store: Store, new_turn: Callable[..., NewTurn]) -> AsyncIterator[None]:
        """A turn; gone after the test."""
        await store.submit(new_turn())
        yield
        await store.redis.flushall()

    @pytest.mark.parametrize("last", ["x", "-1", "1.5", "", "1,1:1", "\u0661", "1" * 16, "1_0", "0x1"])
    async def test_a_wrong_last_event_id_is_told(self, client: httpx.AsyncClient, last: str) -> None:
        """400 says to leave it out."""
        headers = {b"Last-Event-ID": last.encode()}
        answer = await client.get("/v1/turns/s.1/events?follow=false", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")

    @pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 16, "9" * 30])
    @pytest.mark.parametrize("follow", ["true", "false"])
    async def test_a_wrong_after_is_told(self, client: httpx.AsyncClient, after: str, follow: str) -> None:
        """422 names it, whatever its size."""
        params = {"after": after, "follow": follow}
        answer = await client.get("/v1/turns/s.1/events", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert "after" in answer.json()["detail"]

    @pytest.mark.parametrize(
        "last", ["x", "1:1", "1,", "1,1", "1,1:", "-1", "1" * 16, "1,1:1,", "1;1:1", "1\n"]
    )
    async def test_a_wrong_id_of_a_session_stream_is_told(self, client: httpx.AsyncClient, last: str) -> None:
        """400, by header or parameter."""
        answers = [await client.get("/v1/sessions/s/events", params={"after": last})]
        if "\n" not in last:
            answers.append(await client.get("/v1/sessions/s/events", headers={"Last-Event-ID": last}))
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")
