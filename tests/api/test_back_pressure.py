"""A client that does not read holds up what is read for it."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from turnpool_api.http.back_pressure import HIGH_WATER, UNSENT, bound_buffer, bound_unsent
from turnpool_api.http.transport import MAX_CORKED, Corked
from turnpool_api.streams.response import LARGE, FrameResponse

pytestmark = pytest.mark.anyio


class Paused(asyncio.Protocol):
    """Notes whether the transport asks for a pause."""

    is_paused = False

    def pause_writing(self) -> None:
        """It asks for one."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """It needs none any more."""
        self.is_paused = False


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.Transport, Paused, socket.socket]]:
    """A transport with bounded buffers to a socket that nobody reads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        bound_unsent(server)
        client = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_accepted_socket(Paused, ours)
        bound_buffer(transport)
        try:
            yield transport, protocol, client
        finally:
            transport.abort()
            client.close()


@pytest.mark.parametrize("size", [1, 100, 5_000, 100_000])
async def test_writes_of_one_iteration_feel_back_pressure(size: int) -> None:
    """A writer that never waits is told to pause before much is held, here and below."""
    async with connected() as (transport, protocol, _):
        corked = Corked(transport)
        sent = 0
        while not protocol.is_paused and sent < 50_000_000:
            corked.write(b"x" * size)
            sent += size
            if sent % 100_000 < size:
                await asyncio.sleep(0)
        assert protocol.is_paused
        assert corked.get_write_buffer_size() <= HIGH_WATER + MAX_CORKED + 2 * max(size, 100_000)


async def test_small_writes_of_one_iteration_are_one() -> None:
    """They go out with the next iteration, together and in order; an empty one is none."""

    class Written(asyncio.Transport):
        """Notes what is written."""

        def __init__(self) -> None:
            super().__init__()
            self.pieces: list[bytes] = []

        def write(self, data: Any) -> None:
            """Note it."""
            self.pieces.append(bytes(data))

        def is_closing(self) -> bool:
            """Not yet."""
            return False

    below = Written()
    corked = Corked(below)
    for piece in (b"a", b"", b"b"):
        corked.write(piece)
    assert below.pieces == []
    await asyncio.sleep(0)
    corked.write(b"c")
    corked.write(b"d" * MAX_CORKED)
    assert below.pieces == [b"ab", b"c" + b"d" * MAX_CORKED]
    corked.write(b"e")
    await asyncio.sleep(0)
    assert below.pieces[2:] == [b"e"]


async def test_the_kernel_keeps_little_unsent() -> None:
    """What a client does not read stays in the log, not in a socket's buffer of megabytes."""
    async with connected() as (transport, _, client):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        option = socket.TCP_NOTSENT_LOWAT
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, option) == UNSENT
        written = 0
        while transport.get_write_buffer_size() == 0:
            transport.write(b"x" * 10_000)
            written += 10_000
        assert written < 600_000


@pytest.mark.parametrize("size", [LARGE + 1, 100_000])
async def test_no_more_is_read_for_a_client_that_has_not_taken_the_last(size: int) -> None:
    """After a large piece the answer waits for its client before it asks for the next."""
    sent: list[Any] = []
    asked, may_send = 0, asyncio.Event()

    async def frames() -> AsyncGenerator[bytes, None]:
        nonlocal asked
        for _ in range(3):
            asked += 1
            yield b"x" * size

    async def send(message: Any) -> None:
        if sent and len(sent[-1].get("body", b"")) == size:
            await may_send.wait()
        sent.append(message)

    never = asyncio.Event()

    async def receive() -> Any:
        await never.wait()

    sending = asyncio.create_task(FrameResponse(frames()).send_all(receive, send))
    for _ in range(20):
        await asyncio.sleep(0)
    assert asked == 1
    may_send.set()
    await asyncio.wait_for(sending, 5)
    assert b"".join(message.get("body", b"") for message in sent) == b"x" * 3 * size
