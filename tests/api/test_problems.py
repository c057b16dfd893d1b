"""Errors as problem documents, request ids, Retry-After."""

import httpx
import pytest

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.worker import claim
from turnpool.store.store import Store
from turnpool_api.http import problems
from turnpool_api.http.retry_after import LEAST, MOST

pytestmark = pytest.mark.anyio


async def test_an_error_is_a_problem_document(client: httpx.AsyncClient) -> None:
    """All members of RFC 9457 that are ours, and the request's id in body and header."""
    answer = await client.get("/v1/sessions/nobody")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Session not found",
        "status": 404,
        "code": "session_not_found",
        "detail": "There is no session 'nobody': it never was, or it has expired.",
        "request_id": answer.headers["x-request-id"],
    }


@pytest.mark.parametrize("path", ["/v1/sessions", "/v1/turns/s.1", "/nowhere"])
async def test_a_request_id_is_echoed(client: httpx.AsyncClient, path: str) -> None:
    """On success and on errors alike."""
    answer = await client.get(path, headers={"X-Request-ID": "my id/1"})
    assert answer.headers.get_list("x-request-id") == ["my id/1"]


@pytest.mark.parametrize("given", ["", "x" * 129, b"\xe9", "a\tb"])
async def test_a_request_id_that_would_do_harm_is_replaced(
    client: httpx.AsyncClient, given: str | bytes
) -> None:
    """Too long, empty or not plain: the answer has one of ours."""
    raw = given if isinstance(given, bytes) else given.encode()
    answer = await client.get("/healthz", headers=[(b"X-Request-ID", raw)])
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-request-id"].isalnum()


async def test_two_requests_have_two_ids(client: httpx.AsyncClient) -> None:
    """An id names one request."""
    one, two = await client.get("/healthz"), await client.get("/healthz")
    assert one.headers["x-request-id"] != two.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/turns", "/v1/sessions/a/b", "/v1/sessions/a/b/turns"])
async def test_an_unknown_path_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    """A problem document too, which names the path."""
    answer = await client.post(path, json={"input": "hi"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert path in answer.json()["detail"]


async def test_a_wrong_method_names_the_right_ones(client: httpx.AsyncClient) -> None:
    """405 with Allow."""
    answer = await client.put("/v1/sessions/s/turns", json={})
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"]


async def test_a_full_queue_says_when_to_come_back(serve: Serve, store: Store) -> None:
    """429 with Retry-After; once a worker took one, the next is accepted."""
    async with client_of(serve(max_queued=2)) as client:
        await post(client, "a")
        await post(client, "b")
        full = await post(client, "c")
        assert (full.status_code, full.json()["code"]) == (429, "queue_full")
        assert LEAST <= int(full.headers["retry-after"]) <= MOST
        await claim(store)
        assert (await post(client, "c")).status_code == 202


async def test_a_full_session_says_when_to_come_back(serve: Serve, store: Store) -> None:
    """429 with Retry-After; other sessions are not touched by it."""
    async with client_of(serve(max_session_queued=2)) as client:
        for _ in range(3):
            assert (await post(client)).status_code == 202
        full = await post(client)
        assert (full.status_code, full.json()["code"]) == (429, "session_full")
        assert LEAST <= int(full.headers["retry-after"]) <= MOST
        assert (await post(client, "other")).status_code == 202
        await (await claim(store)).complete()
        assert (await post(client)).status_code == 202


async def test_an_error_nobody_thought_of_is_a_problem_document_too(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 tells nothing of the inside, but has the request's id."""
    api = serve()

    async def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(api.context.store, "turn", broken)
    monkeypatch.setattr(problems.log, "error", lambda *_, **__: None)  # its traceback takes seconds to draw
    async with client_of(api) as client:
        answer = await client.get("/v1/turns/s.1", headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == "mine"
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert "secret" not in answer.text
