"""Reads request bodies: how large each may be, and how many bytes all of them."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from turnpool.settings import Settings
from turnpool_api.http.admission import OPEN_PATHS
from turnpool_api.http.errors import BodyTimeoutError, InputTooLargeError, OverloadedError
from turnpool_api.http.state import RequestState, state_of

# Bodies up to this need no share of the memory: the limit of connections bounds them.
SMALL_BYTES = 16_384
# Bodies that may wait for their share; of each the server has read a piece (up to 256 KB) already.
MAX_WAITING = 256
# Seconds a body waits for its share, and how often it looks whether slow ones hold it up.
WAIT_SECONDS = 10.0
LOOK_SECONDS = 0.5
# While others wait, a body that is slower than this (bytes a second, after its first seconds) is given up:
# some clients that send a byte now and then must not keep everybody waiting.
LEAST_RATE = 65_536
GRACE_SECONDS = 2.0


class ClientGoneError(Exception):
    """The client has gone before its body was read."""


class Upload:
    """A large body being read."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self._started = time.monotonic()
        self.received = bytearray()

    def give_up_if_slow(self) -> None:
        """Called while others wait for memory."""
        age = time.monotonic() - self._started
        if age > GRACE_SECONDS + len(self.received) / LEAST_RATE:
            self._timeout.reschedule(asyncio.get_running_loop().time())


class Memory:
    """Bytes of large bodies in memory, over all requests. Shares are given in the order of requests."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.uploads: set[Upload] = set()

    @contextlib.asynccontextmanager
    async def share(self, size: int) -> AsyncIterator[None]:
        """Hold as many bytes. Raises OverloadedError."""
        await self._take(size)
        try:
            yield
        finally:
            self._free += size
            self._hand_out()

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not turn.done():
                    for upload in self.uploads:
                        upload.give_up_if_slow()
                    await asyncio.wait([turn], timeout=LOOK_SECONDS)
        except BaseException as error:
            if turn.done():
                self._free += size
            else:
                self._waiting.remove(entry)
            self._hand_out()
            if isinstance(error, TimeoutError):
                raise OverloadedError from None
            raise

    def _hand_out(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            self._free -= size
            turn.set_result(None)


class Bodies:
    """Middleware: reads the whole body into the request's state; the protocol limits the time."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._most = settings.max_input_bytes
        self._memory = Memory(max(settings.max_bodies_bytes, settings.max_input_bytes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises TurnpoolError."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        state = state_of(scope)
        if not state.is_body_pending:
            await self.app(scope, receive, send)
            return
        with contextlib.suppress(ClientGoneError):
            await self._serve(scope, state, receive, send)

    async def _serve(self, scope: Scope, state: RequestState, receive: Receive, send: Send) -> None:
        # Of an unknown length until it is too long for a small one.
        length = int(state.headers.get("content-length", "0"))
        if length > self._most:
            raise InputTooLargeError(self._most)
        body, is_whole = b"", False
        if length <= SMALL_BYTES:
            body, is_whole = await _read_small(receive)
        if is_whole and len(body) <= SMALL_BYTES:
            await self._pass_on(scope, state, body, receive, send)
            return
        async with contextlib.AsyncExitStack() as share:
            await share.enter_async_context(
                self._memory.share(length if length > SMALL_BYTES else self._most)
            )

            async def send_outside(message: Message) -> None:
                # The route has its input by now; no client that reads slowly may hold memory of others.
                await share.aclose()
                await send(message)

            if not is_whole:
                body = await self._read_large(body, receive)
            await self._pass_on(scope, state, body, receive, send_outside)

    async def _read_large(self, start: bytes, receive: Receive) -> bytes:
        upload = Upload(timeout := asyncio.timeout(None))
        upload.received += start
        self._memory.uploads.add(upload)
        try:
            async with timeout:
                more = True
                while more and len(upload.received) <= self._most:
                    message = await _receive(receive)
                    upload.received += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            raise BodyTimeoutError from None
        finally:
            self._memory.uploads.discard(upload)
        return bytes(upload.received)

    async def _pass_on(
        self, scope: Scope, state: RequestState, body: bytes, receive: Receive, send: Send
    ) -> None:
        if len(body) > self._most:
            raise InputTooLargeError(self._most)
        state.body, state.is_body_pending = body, False
        await self.app(scope, _again(body, receive), send)
        state.body = b""


async def _read_small(receive: Receive) -> tuple[bytes, bool]:
    """A small body, or the start of one that is not, and whether it is whole."""
    message = await _receive(receive)
    body: bytes = message.get("body", b"")
    while message.get("more_body", False) and len(body) <= SMALL_BYTES:
        message = await _receive(receive)
        body += message.get("body", b"")
    return body, not message.get("more_body", False)


async def _receive(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    return message


def _again(body: bytes, receive: Receive) -> Receive:
    """Receive the body as one message, then what follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
