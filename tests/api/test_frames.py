"""The bytes of a stream."""

import asyncio

import pytest

from tests.api import raw
from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.worker import claim
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/turns/s.1/events", "/v1/sessions/s/events"])
async def test_each_write_holds_whole_frames(serve: Serve, store: Store, path: str) -> None:
    """`retry:` first, LF only, and every HTTP chunk ends where a frame ends."""
    api = serve()
    async with client_of(api) as client:
        await post(client)
    run = await claim(store)
    async with raw.get(api.port, path) as answer:
        chunks = [await answer.chunk()]
        for i in range(300):
            await run.say(*(f"é{i}.{k}\r\n" for k in range(i % 7 + 1)))
        await run.complete()
        while b"turn.completed" not in chunks[-1]:
            chunks.append(await asyncio.wait_for(answer.chunk(), 5))
    assert chunks[0].startswith(b"retry: 1000\n\n")
    assert all(chunk.endswith(b"\n\n") for chunk in chunks)
    assert b"\r" not in b"".join(chunks)
    assert b"".join(chunks).count(b"retry:") == 1
    frames = b"".join(chunks).removeprefix(b"retry: 1000\n\n")
    if "turns" in path:
        assert frames == b"".join(
            await store.frames("s.1", "default", 0)
            + await store.frames("s.1", "default", 500)
            + await store.frames("s.1", "default", 1000)
        )


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/turns/s.1/events", "/v1/sessions/s/events"])
async def test_a_silent_stream_pings(
    serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A comment in a write of its own, again and again, and the events after it all come."""
    monkeypatch.setattr("turnpool_api.streams.follow.PING_SECONDS", 0.05)
    api = serve()
    async with client_of(api) as client:
        await post(client)
    run = await claim(store)
    async with raw.get(api.port, path) as answer:
        pings, rest = 0, b""
        while pings < 3:
            chunk = await asyncio.wait_for(answer.chunk(), 5)
            pings += chunk == b": ping\n\n"
        await run.complete()
        while b"turn.completed" not in rest:
            rest = await asyncio.wait_for(answer.chunk(), 5)


@pytest.mark.slow
async def test_a_busy_stream_does_not_ping(
    serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence is counted from the last event."""
    monkeypatch.setattr("turnpool_api.streams.follow.PING_SECONDS", 0.5)
    api = serve()
    async with client_of(api) as client:
        await post(client)
    run = await claim(store)
    loop = asyncio.get_running_loop()
    async with raw.get(api.port, "/v1/turns/s.1/events") as answer:
        started = loop.time()
        while loop.time() - started < 1.2:
            await run.say("x")
            assert b": ping" not in await answer.chunk()
