"""Limits of connections and of time, on real sockets."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from tests.api import raw
from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.sse import stream
from tests.api.worker import claim
from tests.conftest import wait_until
from turnpool.settings import Settings
from turnpool.store.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/sessions/s/turns HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
# Looks at connections are half a second apart.
SECOND = 1.0


@pytest.mark.parametrize("sent", [b"", b"GET", HEAD, HEAD + b"a: ", b"\r\n", HEAD + b"\r\n" + HEAD])
async def test_half_a_head_is_cut_off(serve: Serve, sent: bytes) -> None:
    """408 for a head that has begun, the first or the second; a silent client gets no answer."""
    api = serve(header_seconds=0.3)
    async with raw.connect(api.port) as connection:
        await connection.send(sent)
        if sent.startswith(HEAD + b"\r\n"):
            assert (await connection.answer()).status == 200
        if sent:
            answer = await connection.answer(3)
            assert (answer.status, answer.code) == (408, "request_timeout")
            assert answer.headers["connection"] == "close"
        assert await connection.is_closed(5)


async def test_a_head_that_trickles_is_cut_off(serve: Serve) -> None:
    """A byte now and then does not prolong its time."""
    api = serve(header_seconds=0.5)
    async with raw.connect(api.port) as connection:
        await connection.send(HEAD + b"a: ")
        answer = asyncio.create_task(connection.answer(5))
        while not answer.done():
            await connection.send(b"b")
            await asyncio.wait([answer], timeout=0.05)
        assert answer.result().status == 408


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 100\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"Content-Length: 5\r\n\r\n",
    ],
)
async def test_half_a_body_is_cut_off(serve: Serve, sent: bytes) -> None:
    """408, and the connection ends though the client says nothing more."""
    api = serve(body_seconds=0.3)
    async with raw.connect(api.port) as connection:
        await connection.send(POST + sent)
        answer = await connection.answer(3)
        assert (answer.status, answer.code) == (408, "request_timeout")
        assert answer.headers["connection"] == "close"
        assert await connection.is_closed(5)


async def test_times_of_requests_end_no_stream_and_no_kept_connection(serve: Serve, store: Store) -> None:
    """A stream lives as long as its turn, and an idle connection as long as its own setting."""
    api = serve(header_seconds=0.2, body_seconds=0.2, write_seconds=0.2)
    async with client_of(api) as client, raw.connect(api.port) as idle:
        await idle.send(HEAD + b"\r\n")
        assert (await idle.answer()).status == 200
        await post(client)
        run = await claim(store)
        async with stream(client, "/v1/turns/s.1/events") as events:
            await events.next()
            assert not await idle.is_closed(3 * SECOND)
            await run.complete()
            assert (await events.rest())[-1].kind == "turn.completed"
    async with raw.connect(api.port) as again:
        await again.send(HEAD + b"\r\n" + HEAD + b"\r\n")
        assert [(await again.answer()).status for _ in range(2)] == [200, 200]
        assert not await again.is_closed(2 * SECOND)
        await again.send(HEAD + b"\r\n")
        assert (await again.answer()).status == 200


async def test_an_idle_connection_is_closed_after_its_time(serve: Serve) -> None:
    """Without another byte; by default it is kept longer than proxies keep theirs."""
    assert Settings().keep_alive_seconds > 120
    api = serve(keep_alive_seconds=1)
    async with raw.connect(api.port) as connection:
        await connection.send(HEAD + b"\r\n")
        assert (await connection.answer()).status == 200
        assert await connection.is_closed(3)


async def test_a_client_that_does_not_read_its_stream_is_cut_off(serve: Serve, store: Store) -> None:
    """What waits for it would otherwise stay in memory."""
    api = serve(write_seconds=0.5)
    async with client_of(api) as client:
        await post(client)
        run = await claim(store)
        async with raw.get(api.port, "/v1/turns/s.1/events", buffer=4096) as answer:
            await answer.chunk()
            for _ in range(100):
                await run.say("x" * 50_000)

            async def is_cut_off() -> bool:
                return 'turnpool_streams{pool="turnpool"} 0.0' in (await client.get("/metrics")).text

            await wait_until(is_cut_off, 10)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [({"max_connections": 3}, "all"), ({"max_connections_per_address": 3}, "address")],
)
async def test_connections_over_the_limit_are_refused(
    serve: Serve, changes: dict[str, int], limit: str
) -> None:
    """503 without reading a byte; when one has ended the next is served."""
    api = serve(**changes)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(raw.connect(api.port)) for _ in range(2)]
        async with raw.connect(api.port) as third:
            for connection in [*opened, third]:
                await connection.send(HEAD + b"\r\n")
                assert (await connection.answer()).status == 200
            for _ in range(20):
                async with raw.connect(api.port) as refused:
                    answer = await refused.answer()
                    assert (answer.status, answer.code) == (503, "too_many_connections")
                    assert answer.headers["retry-after"]
                    assert await refused.is_closed()

        async def is_served() -> bool:
            async with raw.connect(api.port) as connection:
                await connection.send(HEAD + b"\r\n")
                return (await connection.answer()).status == 200

        await wait_until(is_served, 5)
        await opened[0].send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = (await opened[0].answer()).body.decode()
        assert f'turnpool_http_connections_refused_total{{limit="{limit}",pool="turnpool"}}' in said


async def test_a_refused_body_is_read_to_the_end_of_its_answer(serve: Serve) -> None:
    """A client that sends everything before it reads gets its answer, not a reset."""
    api = serve(max_input_bytes=1000)
    async with raw.connect(api.port) as connection:
        await connection.send(POST + b"Content-Length: 4000000\r\n\r\n")
        await connection.send(b"x" * 4_000_000)
        answer = await connection.answer()
        assert (answer.status, answer.code) == (413, "input_too_large")
        started = time.monotonic()
        assert await connection.is_closed()
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("count", [30, 300])
async def test_a_client_that_half_closes_leaves_nothing(serve: Serve, count: int) -> None:
    """Half-closed or reset, in the midst of any part of a request."""
    api = serve()
    parts = [b"", HEAD, POST + b"Content-Length: 100\r\n\r\n{", POST + b"Content-Length: 0\r\n\r\n"]
    for n in range(count):
        async with raw.connect(api.port) as connection:
            await connection.send(parts[n % len(parts)])
            if n % 2:
                await connection.end()

    async def is_empty() -> bool:
        return not api.server_state.connections and not api.server_state.tasks

    await wait_until(is_empty, 5)
