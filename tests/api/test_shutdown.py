"""SIGTERM of a real `turnpool-api` process."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.api import raw
from tests.api.clients import post
from tests.api.sse import seqs, stream
from tests.api.worker import claim
from tests.conftest import wait_until
from turnpool.settings import Settings
from turnpool.store.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance]

Process = asyncio.subprocess.Process


@asynccontextmanager
async def process(settings: Settings, **env: str) -> AsyncIterator[tuple[Process, int]]:
    """The console script as it is installed, and its port."""
    running = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("turnpool-api"),
        env=os.environ | {"TURNPOOL_REDIS_URL": settings.redis_url, "TURNPOOL_PORT": "0"} | env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert running.stdout is not None
    try:
        async with asyncio.timeout(20):
            while b'"api_started"' not in (line := await running.stdout.readline()):
                assert line, "the process ended before it served"
        yield running, json.loads(line)["port"]
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
        # The transport closes its pipe when it is read to the end.
        await running.stdout.read()


def client_at(port: int) -> httpx.AsyncClient:
    """A client of the process."""
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, limits=limits)


async def test_on_sigterm_every_stream_says_good_bye(settings: Settings, store: Store) -> None:
    """Each open stream ends whole with `retry:`, the process with 0, within 3 s; clients go on elsewhere."""
    async with (
        process(settings) as (running, port),
        process(settings) as (_, other),
        AsyncExitStack() as stack,
    ):
        client = await stack.enter_async_context(client_at(port))
        for i in range(20):
            await post(client, f"s{i}")
        runs = [await claim(store) for _ in range(10)]
        paths = [f"/v1/turns/s{i}.1/events" for i in range(20)] + [
            f"/v1/sessions/s{i}/events" for i in range(20)
        ]
        streams = [await stack.enter_async_context(stream(client, path)) for path in paths]
        for opened in streams:
            await opened.next()
        started = time.monotonic()
        running.send_signal(signal.SIGTERM)
        endings = await asyncio.gather(*(opened.rest_of_blocks() for opened in streams))
        assert await asyncio.wait_for(running.wait(), 3) == 0
        assert time.monotonic() - started < 3
        assert all(blocks[-1] == b"retry: 1000" for blocks in endings)

        async with client_at(other) as elsewhere:
            await runs[0].complete()
            path = f"/v1/turns/{runs[0].id}/events"
            async with stream(elsewhere, path, headers={"Last-Event-ID": "2"}) as opened:
                assert seqs(await opened.rest()) == [3]


async def test_a_client_that_does_not_read_cannot_keep_the_process(settings: Settings, store: Store) -> None:
    """A stream that is stuck in its client's buffers is cut, and the process ends with 0."""
    async with process(settings) as (running, port), client_at(port) as client:
        await post(client)
        run = await claim(store)
        async with raw.get(port, "/v1/turns/s.1/events", buffer=4096) as answer:
            await answer.chunk()
            for _ in range(100):
                await run.say("x" * 50_000)
            running.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(running.wait(), 13) == 0


async def test_sigterm_at_once_ends_the_process_too(settings: Settings) -> None:
    """Idle, with a connection that is kept alive."""
    async with process(settings) as (running, port), client_at(port) as client:
        assert (await client.get("/healthz")).status_code == 200
        running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.wait(), 3) == 0
        with pytest.raises(httpx.ConnectError):
            async with client_at(port) as late:
                await late.get("/healthz")


async def wait_for_turns(store: Store, count: int) -> None:
    """Wait until so many turns are accepted."""

    async def accepted() -> bool:
        return (await store.queue_state("turns")).queued == count

    await wait_until(accepted)


async def refuses(port: int) -> bool:
    """Whether new connections are refused."""
    try:
        async with client_at(port) as late:
            await late.get("/healthz")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        pass  # accepted just before
    return False


async def test_on_sigterm_calls_that_wait_have_their_time(settings: Settings, store: Store) -> None:
    """Chats and waits whose turns end in it are answered well; streams end, new connections are refused."""
    async with process(settings) as (running, port), client_at(port) as client:
        chats = [asyncio.create_task(client.post(f"/chat/c{i}", json={"message": "hi"})) for i in range(10)]
        for i in range(5):
            await post(client, f"w{i}")
        waits = [asyncio.create_task(client.get(f"/v1/turns/w{i}.1", params={"wait": 60})) for i in range(5)]
        await wait_for_turns(store, 15)
        async with stream(client, "/v1/turns/w0.1/events") as opened:
            await opened.next()
            running.send_signal(signal.SIGTERM)
            assert (await opened.rest_of_blocks())[-1] == b"retry: 1000"
        await wait_until(lambda: refuses(port))
        assert not any(call.done() for call in (*chats, *waits))
        for _ in range(15):
            run = await claim(store)
            await run.say("hello")
            await run.complete()
        answers = [await chat for chat in chats]
        assert [(answer.status_code, answer.json()) for answer in answers] == [
            (200, {"response": "hello"})
        ] * 10
        assert [(await wait).json()["status"] for wait in waits] == ["completed"] * 5
        assert await asyncio.wait_for(running.wait(), 3) == 0


async def test_calls_that_wait_longer_are_told_the_turn(settings: Settings, store: Store) -> None:
    """After TURNPOOL_API_DRAIN_SECONDS: the state as it is, and for a chat 503 with the turn's id."""
    async with (
        process(settings, TURNPOOL_API_DRAIN_SECONDS="0.5") as (running, port),
        client_at(port) as client,
    ):
        chatting = asyncio.create_task(client.post("/chat/c", json={"message": "hi"}))
        await post(client, "w")
        waiting = asyncio.create_task(client.get("/v1/turns/w.1", params={"wait": 60}))
        await wait_for_turns(store, 2)
        started = time.monotonic()
        running.send_signal(signal.SIGTERM)
        assert (await waiting).json()["status"] == "queued"
        answer = await chatting
        assert (answer.status_code, answer.json()["turn_id"]) == (503, "c.1")
        assert answer.headers["retry-after"]
        assert time.monotonic() - started >= 0.5
        assert await asyncio.wait_for(running.wait(), 3) == 0


async def test_a_second_signal_ends_the_waits(settings: Settings, store: Store) -> None:
    """Whoever sends it does not want to wait."""
    async with process(settings) as (running, port), client_at(port) as client:
        chatting = asyncio.create_task(client.post("/chat/c", json={"message": "hi"}))
        await wait_for_turns(store, 1)
        running.send_signal(signal.SIGTERM)
        await wait_until(lambda: refuses(port))
        assert not chatting.done()
        running.send_signal(signal.SIGTERM)
        assert (await chatting).json()["code"] == "turn_unfinished"
        assert await asyncio.wait_for(running.wait(), 3) == 0


async def test_an_idle_connection_is_closed_though_another_waits(settings: Settings, store: Store) -> None:
    """Its client would send the next request to a process that ends."""
    async with process(settings) as (running, port), client_at(port) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" in await reader.readuntil(b"ok\n")
        chatting = asyncio.create_task(client.post("/chat/c", json={"message": "hi"}))
        await wait_for_turns(store, 1)
        running.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(reader.read(), 3) == b""
        assert not chatting.done()
        writer.close()
        await writer.wait_closed()
        await (await claim(store)).complete()
        assert (await chatting).status_code == 200
