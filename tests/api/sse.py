"""Reading event streams as bytes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import orjson

TERMINAL = ("turn.completed", "turn.failed", "turn.cancelled")


class Event(NamedTuple):
    """One event of a stream."""

    id: str
    kind: str
    data: dict[str, Any]


def parse(frame: bytes) -> Event | None:
    """The event in a block, None for `retry:` and comments."""
    fields = dict(line.split(b": ", 1) for line in frame.split(b"\n"))
    if b"event" not in fields:
        return None
    return Event(fields[b"id"].decode(), fields[b"event"].decode(), orjson.loads(fields[b"data"]))


class Stream:
    """An open event stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._blocks = self._split()

    async def _split(self) -> AsyncIterator[bytes]:
        rest = b""
        async for piece in self.response.aiter_bytes():
            *blocks, rest = (rest + piece).split(b"\n\n")
            for block in blocks:
                yield block
        assert rest == b"", "the stream ended within a frame"

    async def block(self) -> bytes:
        """The next block: an event, a comment, `retry:`."""
        return await anext(self._blocks)

    async def next(self) -> Event:
        """The next event."""
        async for block in self._blocks:
            if event := parse(block):
                return event
        raise EOFError

    async def take(self, count: int) -> list[Event]:
        """The next events."""
        return [await self.next() for _ in range(count)]

    async def rest(self) -> list[Event]:
        """All events to the end of the stream."""
        return [event async for block in self._blocks if (event := parse(block))]

    async def rest_of_blocks(self) -> list[bytes]:
        """All blocks to the end of the stream."""
        return [block async for block in self._blocks]

    async def until_end_of_turns(self, count: int) -> list[Event]:
        """Events until so many turns have ended."""
        events: list[Event] = []
        while sum(event.kind in TERMINAL for event in events) < count:
            events.append(await self.next())
        return events


@asynccontextmanager
async def stream(
    client: httpx.AsyncClient, path: str, *, method: str = "GET", **options: Any
) -> AsyncIterator[Stream]:
    """An open stream; it must be one."""
    async with client.stream(method, path, **options) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield Stream(response)


def seqs(events: list[Event]) -> list[int]:
    """Their places in the turn's log."""
    return [event.data["seq"] for event in events]


def text(events: list[Event]) -> str:
    """The text they carry."""
    return "".join(event.data["text"] for event in events if event.kind == "turn.output_text.delta")
