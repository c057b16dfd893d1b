"""The load client: posts turns on bare sockets and keeps every byte with the time it came.

Nothing is parsed while the load runs, so that the client takes as little as it can of the machine.
"""

import asyncio
import json
import re
import time
from itertools import pairwise
from typing import Any, NamedTuple, cast

# What ends an answer in chunks.
LAST_CHUNK = b"0\r\n\r\n"
DELTA, END = b"event: turn.output_text.delta", b"event: turn.completed"
WORD = re.compile(rb"w(\d+) ")
# Seconds until a turn counts as failed.
LONGEST = 120.0


class Told(NamedTuple):
    """One turn as its client saw it, in seconds: from the post to each."""

    started: float
    accepted: float
    ttft: float
    ended: float
    gaps: list[float]
    """Between pieces of text that came one after the other."""
    tokens: int
    whole: bool
    """Whether it was every token once, in order."""


class Stream(asyncio.Protocol):
    """A post and its answer."""

    def __init__(self, request: bytes, tokens: int) -> None:
        self._request, self._tokens = request, tokens
        self._started = time.monotonic()
        self._pieces: list[tuple[float, bytes]] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Post."""
        # uvloop's are not declared as such.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self._pieces.append((time.monotonic(), data))
        if data.endswith(LAST_CHUNK):
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        """Over, in one way or the other."""
        if not self.ended.done():
            self.ended.set_result(None)

    def abort(self) -> None:
        """Give it up."""
        self._transport.abort()

    def told(self) -> Told:
        """What came, once it has ended."""
        answer = b"".join(piece for _, piece in self._pieces)
        text = answer.partition(END)[0]
        words = [int(number) for number in WORD.findall(text)]
        times = [at for at, piece in self._pieces if DELTA in piece]
        whole = answer.startswith(b"HTTP/1.1 200") and words == list(range(self._tokens))
        first = self._pieces[0][0] if self._pieces else time.monotonic()
        return Told(
            started=self._started,
            accepted=first - self._started,
            ttft=(times[0] if times else time.monotonic()) - self._started,
            ended=(self._pieces[-1][0] if self._pieces else time.monotonic()) - self._started,
            gaps=[later - earlier for earlier, later in pairwise(times)],
            tokens=len(words),
            whole=whole,
        )


async def post(port: int, session: str, params: dict[str, Any]) -> Told:
    """Post a turn of the simulated agent and read its stream to the end."""
    body = json.dumps({"input": "hello", "agent": "simulated", "params": params}).encode()
    head = (
        f"POST /v1/sessions/{session}/turns HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    stream = Stream(head.encode() + body, params["tokens"])
    try:
        async with asyncio.timeout(LONGEST):
            await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", port)
            await stream.ended
    except TimeoutError:
        stream.abort()
    return stream.told()
