"""How a stream ends when its client goes, or its task is cancelled."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from turnpool_api.streams.response import FrameResponse

pytestmark = pytest.mark.anyio


class Connection:
    """Of a client that stays until `gone` is set; `begun` once it has the stream's start."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.begun = asyncio.Event()

    async def receive(self) -> Message:
        """Say that the client has gone, when it has."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take what is sent."""
        del message
        self.begun.set()

    def send_all(self, frames: AsyncGenerator[bytes, None]) -> asyncio.Task[None]:
        """A task that sends a stream of these frames."""
        return asyncio.create_task(FrameResponse(frames).send_all(self.receive, self.send))


async def endless(swallowed: int, seen: list[str]) -> AsyncGenerator[bytes, None]:
    """Frames of a stream that goes on after so many cancellations, as redis-py's calls may."""
    yield b"data: begun\n\n"
    for _ in range(swallowed + 1):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            if len(seen) > swallowed:
                raise


@pytest.mark.parametrize("swallowed", [0, 1, 3])
async def test_a_stream_ends_with_its_client(swallowed: int) -> None:
    """However often a cancellation is lost on the way; the task that sent it goes on, not cancelled."""
    connection, seen = Connection(), list[str]()
    sending = connection.send_all(endless(swallowed, seen))
    await connection.begun.wait()
    connection.gone.set()
    await asyncio.wait([sending], timeout=5)
    ended = sending.done()
    while not sending.done():
        sending.cancel()
        await asyncio.sleep(0)
    assert ended
    assert len(seen) == swallowed + 1
    assert not sending.cancelling()


async def test_a_cancelled_stream_is_cancelled() -> None:
    """Whoever cancels it while its client is there is told that it was."""
    connection = Connection()
    sending = connection.send_all(endless(0, []))
    await connection.begun.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(sending, 5)
