"""A small provider that speaks HTTP, and turns for the agent `chat`."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from turnpool.agent import Event, Message, Steps, Turn
from turnpool_workers.agents import chat


def chunk(text: str | None = None, **more: Any) -> str:
    """An event of the stream, as OpenAI's."""
    delta = {} if text is None else {"content": text}
    body = {"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
    return f"data: {json.dumps(body | more)}\n\n"


END = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
DONE = END + "data: [DONE]\n\n"


def answer(*parts: str, status: str = "200 OK", headers: str = "", cut: bool = False) -> bytes:
    """A whole HTTP answer; cut: the connection ends before the body does."""
    kind = "text/event-stream" if status.startswith("200") else "application/json"
    chunks = [f"{len(part.encode()):x}\r\n{part}\r\n" for part in parts]
    end = "" if cut else "0\r\n\r\n"
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n"
    return (head + headers + "\r\n" + "".join(chunks) + end).encode()


def rest(*parts: str, cut: bool = False) -> bytes:
    """What follows of an answer."""
    return answer(*parts, cut=cut).partition(b"\r\n\r\n")[2]


@dataclass
class Provider:
    """Answers every request alike, and notes it."""

    answer: bytes = b""
    # What follows after the pause, seconds.
    rest: bytes = b""
    pause: float = 0
    # What comes in between, ten times.
    beat: bytes = b""
    # What it does before it answers.
    think: Callable[[], Awaitable[None]] | None = None
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((head[0], headers, json.loads(body)))
        if self.think:
            await self.think()
        writer.write(self.answer)
        await writer.drain()
        # Who has heard enough goes away.
        with suppress(ConnectionError):
            for _ in range(10):
                await asyncio.sleep(self.pause / 10)
                writer.write(self.beat)
                await writer.drain()
            writer.write(self.rest)


def turn(messages: list[Message] | None = None, **params: Any) -> Turn:
    """A turn of a conversation."""
    messages = messages or [{"role": "user", "content": "hello"}]

    async def record(_: str, result: bytes | None) -> bytes:
        await asyncio.sleep(0)
        return result or b""

    return Turn("s.1", "s", "chat", messages[-1:], messages, params, {}, 1, Steps(record))


async def said(turn: Turn, items: list[str | Event] | None = None) -> list[str | Event]:
    """All that the agent yields; what comes before an error is in the list given."""
    items = [] if items is None else items
    async for item in chat.agent(turn):
        items.append(item)
    return items
