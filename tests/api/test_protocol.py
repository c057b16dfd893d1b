"""One connection: limits of heads, pipelining, and what is left of it when it ends."""

import asyncio
import gc
import weakref

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tests.api.wire import Wire, settle

pytestmark = pytest.mark.anyio

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


async def test_what_is_used_of_uvicorns_inside_is_there() -> None:
    """A new version may have other private parts: see pyproject.toml."""
    assert uvicorn.__version__.startswith("0.54.")
    for name in ("_start_asgi_task", "_unset_keepalive_if_required", "on_response_complete"):
        assert callable(getattr(HttpToolsProtocol, name))
    assert callable(FlowControl.pause_reading)
    wire = Wire()
    await wire.send(GET % 1)
    used = {"pipeline", "cycle", "flow", "url", "headers", "parser", "timeout_keep_alive_task"}
    assert used <= set(vars(wire.protocol))
    cycle = wire.protocol.cycle
    assert isinstance(cycle, RequestResponseCycle)
    assert {"keep_alive", "disconnected", "message_event"} <= set(vars(cycle))
    assert {"response_started", "response_complete"} <= set(vars(cycle))


@pytest.mark.parametrize(
    ("status", "pieces"),
    [
        (414, [b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n"]),
        (414, [b"GET /", *[b"a" * 100] * 100]),
        (414, [b"GET /?", *[b"a=b&" * 25] * 100]),
        (431, [HEAD, *[b"a: b\r\n"] * 200]),
        (431, [HEAD + b"a: b\r\n" * 200 + b"\r\n"]),
        (431, [HEAD + b"a: ", *[b"b" * 1000] * 50]),
        (431, [HEAD, *[b"a" * 1000] * 50]),
        (431, [HEAD + b"a: " + b"b" * 100_000 + b"\r\n\r\n"]),
        (431, [HEAD, *[b"a: " + b"b" * 996 + b"\r\n"] * 50]),
        (431, [b"\r\n" * 100] * 1000),
        (
            431,
            [b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", *[b"a: b\r\n"] * 200],
        ),
        (
            431,
            [
                b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: ",
                *[b"b" * 1000] * 50,
            ],
        ),
        (431, [b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", *[b"e" * 1000] * 50]),
        (431, [HEAD + b"Connection: upgrade\r\nUpgrade: ", *[b"b" * 1000] * 50]),
    ],
)
async def test_a_head_without_end_is_refused(status: int, pieces: list[bytes]) -> None:
    """Long before all of it has arrived, and nothing of it is served."""
    wire = Wire()
    await wire.send(*pieces)
    assert wire.transport.written.startswith(b"HTTP/1.1 %d " % status)
    assert not wire.is_open
    assert wire.seen == []


@pytest.mark.parametrize("at", [1, 50, 2047, 2048, 2049, 20_000])
async def test_a_head_just_under_the_limits_is_served(at: int) -> None:
    """In one piece or several; so is the next one on the same connection."""
    wire = Wire(max_header_bytes=32_768, max_headers=100)
    head = HEAD + b"".join(b"a%d: " % n + b"b" * 320 + b"\r\n" for n in range(98)) + b"\r\n"
    assert 31_000 < len(head) < 32_768
    for _ in range(3):
        await wire.send(head[:at], head[at:])
    assert [path for _, path, _ in wire.seen] == ["/"] * 3


async def test_a_large_body_is_no_head() -> None:
    """Neither with a length nor in chunks, of one byte each."""
    wire = Wire()
    body = b"x" * 100_000
    await wire.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", *[body[:10_000]] * 10)
    await wire.send(b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    await wire.send(*[b"1\r\nx\r\n" * 1000] * 100, b"0\r\n\r\n")
    assert [(path, len(got)) for _, path, got in wire.seen] == [("/a", 100_000), ("/b", 100_000)]


async def test_pipelined_requests_are_answered_in_order_and_wait_outside() -> None:
    """However many arrive at once, few of them are in memory at a time."""
    wire = Wire()
    wire.answer_now.clear()
    await wire.send(b"".join(GET % n for n in range(5000)))
    assert wire.begun == 1
    assert len(wire.protocol.pipeline) < 100
    assert vars(wire.transport)["is_paused"]
    wire.answer_now.set()
    while len(wire.seen) < 5000:
        await asyncio.sleep(0)
        assert len(wire.protocol.pipeline) < 100
    await settle()
    assert [path for _, path, _ in wire.seen] == [f"/{n}" for n in range(5000)]
    assert not wire.transport.is_paused
    await wire.send(GET % 7)
    assert len(wire.seen) == 5001


async def test_every_request_of_a_lost_connection_is_told() -> None:
    """Not only the newest: the first may be a stream that would go on for ever."""
    wire = Wire()
    waiting = asyncio.Event()
    ended: list[str] = []

    async def stream(scope: object, receive: object, send: object) -> None:
        del scope, send
        waiting.set()
        while (await receive())["type"] != "http.disconnect":  # type: ignore[operator]
            pass
        ended.append("stream")

    wire.protocol.app = stream
    await wire.send(GET % 1 + GET % 2)
    await waiting.wait()
    wire.protocol.connection_lost(None)
    await settle()
    assert ended == ["stream"]
    assert wire.begun == 0
    assert not wire.state.tasks


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_a_lost_connection_leaves_nothing(error: Exception | None) -> None:
    """No timer, and no cycle of references that would wait for the collector: it runs seldom here."""
    gc.collect()
    gc.disable()
    try:
        wire = Wire()
        await wire.send(HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n" + HEAD)
        protocol = weakref.ref(wire.protocol)
        wire.protocol.connection_lost(error)
        assert wire.protocol.timeout_keep_alive_task is None
        assert wire.connections.open == set()
        del wire.protocol
        await settle()
        assert protocol() is None
    finally:
        gc.enable()
