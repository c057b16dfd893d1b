"""A small HTTP client on bare sockets: streams of events with the time each came.

It checks what a picky client would: whole frames, LF line ends, dense ids.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple


class Frame(NamedTuple):
    """An event, and when it came (`time.monotonic`). `place`: its id as sent, `id` the number in it."""

    id: int
    event: str
    data: dict[str, Any]
    at: float
    place: str = ""


@dataclass
class Answer:
    """Status, headers in lower case, and the rest of the connection."""

    status: int
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def body(self) -> Any:
        """The JSON body, None if empty."""
        if self.headers.get("transfer-encoding") == "chunked":
            content = b"".join([chunk async for chunk in self.chunks()])
        else:
            content = await self.reader.readexactly(int(self.headers.get("content-length", 0)))
        self.writer.close()
        return json.loads(content) if content else None

    async def chunks(self) -> AsyncIterator[bytes]:
        """The chunks of the body."""
        while size := int(await self.reader.readline(), 16):
            yield (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()

    async def frames(self) -> AsyncIterator[Frame]:
        """The events of the stream."""
        try:
            async for chunk in self.chunks():
                assert b"\r" not in chunk
                assert chunk.endswith(b"\n\n"), "a frame was split over two writes"
                for part in chunk.decode().split("\n\n")[:-1]:
                    if part.startswith("id: "):
                        head, event, data = part.split("\n")
                        place = head.removeprefix("id: ")
                        yield Frame(
                            # On a session's stream: the highest turn seen.
                            int(place.partition(",")[0]),
                            event.removeprefix("event: "),
                            json.loads(data.removeprefix("data: ")),
                            time.monotonic(),
                            place,
                        )
        finally:
            self.writer.close()


async def request(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    limit: int = 2**22,
) -> Answer:
    """Send one request; the answer's head is read. `limit`: bytes taken in before they are wanted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    try:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        status = int((await reader.readline()).split()[1])
        received = {}
        while line := (await reader.readline()).strip():
            name, _, value = line.decode().partition(": ")
            received[name.lower()] = value
    except BaseException:
        writer.transport.abort()
        raise
    return Answer(status, received, reader, writer)


async def post_turn(port: int, session: str, body: dict[str, Any], **headers: str) -> Answer:
    """Post a turn and ask for its stream."""
    path = f"/v1/sessions/{session}/turns"
    return await request(port, "POST", path, body, {"Accept": "text/event-stream", **headers})


async def run_turn(port: int, session: str, body: dict[str, Any]) -> list[Frame]:
    """Post a turn and read its stream to the end."""
    answer = await post_turn(port, session, body)
    assert answer.status == 200, await answer.body()
    return [frame async for frame in answer.frames()]


def check_dense(frames: list[Frame], after: int = 0) -> None:
    """Ids go up by one, the last event is the only terminal one."""
    assert [frame.id for frame in frames] == list(range(after + 1, after + 1 + len(frames)))
    ends = [f.event for f in frames if f.event in ("turn.completed", "turn.failed", "turn.cancelled")]
    assert ends == [frames[-1].event]


def text_of(frames: list[Frame]) -> str:
    """The answer as a client has it: a restart takes back all but `keep` characters."""
    text = ""
    for frame in frames:
        if frame.event == "turn.output_text.delta":
            text += frame.data["text"]
        elif frame.event == "turn.restarted":
            text = text[: frame.data["keep"]]
    return text


def words(tokens: int) -> str:
    """What the simulated agent answers."""
    return "".join(f"w{k} " for k in range(tokens))
