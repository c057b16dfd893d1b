"""Posts of turns are served some at a time, up to the start of their answers."""

import asyncio
from typing import Any

import pytest

from turnpool_api.http import gate
from turnpool_api.http.gate import Gate

pytestmark = pytest.mark.anyio


async def refuses(_: Any, __: Any, send: Any) -> None:
    """Answer at once."""
    await send({"type": "http.response.start", "status": 401, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def body() -> dict[str, Any]:
    """The whole of a post."""
    return {"type": "http.request", "body": b"{}", "more_body": False}


async def test_clients_that_do_not_read_hold_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are; nobody needs a key for that."""
    monkeypatch.setattr(gate, "SUBMITS_AT_ONCE", 2)
    served = Gate(refuses)
    answered = asyncio.Event()

    async def stuck(_: Any) -> None:
        await asyncio.Event().wait()

    async def reads(_: Any) -> None:
        answered.set()

    def post(send: Any) -> asyncio.Task[None]:
        scope = {"type": "http", "method": "POST", "path": "/v1/sessions/s/turns", "headers": []}
        return asyncio.create_task(served(scope, body, send))

    slow = [post(stuck) for _ in range(5)]
    await asyncio.wait_for(post(reads), 5)
    assert answered.is_set()
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)


async def test_posts_wait_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many are between their body and their answer."""
    monkeypatch.setattr(gate, "SUBMITS_AT_ONCE", 2)
    inside = 0
    go = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal inside
        inside += 1
        await go.wait()
        inside -= 1
        await refuses(scope, receive, send)

    async def reads(_: Any) -> None:
        assert inside <= 2

    served = Gate(slow)
    scope = {"type": "http", "method": "POST", "path": "/v1/sessions/s/turns", "headers": []}
    posts = [asyncio.create_task(served(dict(scope), body, reads)) for _ in range(5)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert inside == 2
    go.set()
    await asyncio.wait_for(asyncio.gather(*posts), 5)
