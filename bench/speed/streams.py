"""The load client: posts turns on bare sockets and keeps every byte with the time it came.

Nothing is parsed while the load runs, so that the client takes as little as it can of the machine.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, cast

# What a stream starts with, and what ends it.
OK = b"HTTP/1.1 200"
LAST_CHUNK = b"0\r\n\r\n"
WORD = re.compile(rb"w(\d+) ")
# Seconds until a turn counts as failed; also the time to first token of one that had none.
LONGEST = 120.0

Params = dict[str, Any]
"""Those of agent `simulated`."""


class Dialect(NamedTuple):
    """How a server is asked for a turn, and how its text is told from the rest."""

    request: Callable[[str, Params], tuple[str, dict[str, Any]]]
    """Path and body for a session."""
    delta: bytes
    """In every piece of text."""
    end: bytes
    """Behind all text; what comes then may repeat it."""


def _turn(session: str, params: Params) -> tuple[str, dict[str, Any]]:
    body = {"input": "hello", "agent": "simulated", "params": params}
    return f"/v1/sessions/{session}/turns", body


TURNPOOL = Dialect(_turn, b"event: turn.output_text.delta", b"event: turn.completed")


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
    """A post and its answer. `last`: the connection is closed behind it."""

    def __init__(self, request: bytes, tokens: int, dialect: Dialect, *, last: bool = True) -> None:
        self._request, self._tokens, self._dialect, self._last = request, tokens, dialect, last
        self._transport: asyncio.Transport | None = None
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
        if not data.endswith(LAST_CHUNK):
            return
        if self._last and self._transport:
            self._transport.close()
        else:
            self._end()

    def connection_lost(self, _: Exception | None) -> None:
        """Over, in one way or the other."""
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    @property
    def refused(self) -> bool:
        """Whether there was no answer, or one that is no stream."""
        return not (self._pieces and self._pieces[0][1].startswith(OK))

    def abort(self) -> None:
        """Give it up."""
        if self._transport:
            self._transport.abort()

    def told(self) -> Told:
        """What came, once it has ended."""
        return tell(self._started, self._pieces, self._tokens, self._dialect)


def tell(started: float, pieces: list[tuple[float, bytes]], tokens: int, dialect: Dialect) -> Told:
    """What the pieces of an answer say."""
    answer = b"".join(piece for _, piece in pieces)
    words = [int(number) for number in WORD.findall(answer.partition(dialect.end)[0])]
    times = [at for at, piece in pieces if dialect.delta in piece]
    return Told(
        started=started,
        accepted=pieces[0][0] - started if pieces else LONGEST,
        ttft=times[0] - started if times else LONGEST,
        ended=pieces[-1][0] - started if pieces else LONGEST,
        gaps=[later - earlier for earlier, later in pairwise(times)],
        tokens=len(words),
        whole=answer.startswith(OK) and words == list(range(tokens)),
    )


async def post(port: int, session: str, params: Params, dialect: Dialect) -> Stream:
    """Post a turn of the simulated agent and read its stream to the end."""
    path, body = dialect.request(session, params)
    stream = Stream(request(path, body, "Accept: text/event-stream"), params["tokens"], dialect)
    await follow(port, stream)
    return stream


async def connect(port: int) -> asyncio.Transport:
    """A connection for `post_on`."""
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port)
    return transport


async def post_on(connection: asyncio.Transport, session: str, params: Params, dialect: Dialect) -> Stream:
    """As `post`, on a connection that stays."""
    path, body = dialect.request(session, params)
    asked = request(path, body, "Accept: text/event-stream")
    stream = Stream(asked, params["tokens"], dialect, last=False)
    connection.set_protocol(stream)
    stream.connection_made(connection)
    try:
        async with asyncio.timeout(LONGEST):
            await stream.ended
    except TimeoutError:
        stream.abort()
    return stream


async def follow(port: int, stream: Stream) -> None:
    """Connect, and wait until the stream has ended."""
    try:
        async with asyncio.timeout(LONGEST):
            await asyncio.get_running_loop().create_connection(lambda: stream, "127.0.0.1", port)
            await stream.ended
    except OSError:  # a timeout too; what came tells
        stream.abort()


def request(path: str, body: dict[str, Any], header: str) -> bytes:
    """A post of JSON as it goes over the wire."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content
