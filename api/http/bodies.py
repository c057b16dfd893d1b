"""Reads request bodies: how large, how long, and how many bytes at once."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BodyTimeoutError, InputTooLargeError, OverloadedError
from api.http.admission import OPEN_PATHS
from api.http.state import RequestState, state_of
from turnpool.settings import Settings

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
    """A body being read. `is_shared`: it holds a share of the memory."""

    def __init__(self, timeout: asyncio.Timeout, *, is_shared: bool) -> None:
        self._timeout = timeout
        self._started = time.monotonic()
        self.is_shared = is_shared
        self.received = bytearray()

    def give_up_if_slow(self) -> None:
        """Called while others wait for memory."""
        age = time.monotonic() - self._started
        if self.is_shared and age > GRACE_SECONDS + len(self.received) / LEAST_RATE:
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
    """Middleware: reads the whole body into the request's state."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._most = settings.max_input_bytes
        self._seconds = settings.body_seconds
        self._memory = Memory(max(settings.max_bodies_bytes, settings.max_input_bytes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises TurnpoolError."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        state = state_of(scope)
        length = int(state.headers.get("content-length", "0"))
        if length > self._most:
            raise InputTooLargeError(self._most)
        async with contextlib.AsyncExitStack() as share:

            async def send_outside(message: Message) -> None:
                # The route has its input by now; no client that reads slowly may hold memory of others.
                await share.aclose()
                await send(message)

            try:
                if state.is_body_pending:
                    await self._read(state, receive, length, share)
            except ClientGoneError:
                return
            outside = send_outside if len(state.body) > SMALL_BYTES else send
            await self.app(scope, _again(state.body, receive), outside)
            state.body = b""

    async def _read(
        self, state: RequestState, receive: Receive, length: int, share: contextlib.AsyncExitStack
    ) -> None:
        """Read the body into the state."""
        if length > SMALL_BYTES:
            await share.enter_async_context(self._memory.share(length))
        timeout = asyncio.timeout(self._seconds)
        upload = Upload(timeout, is_shared=length > SMALL_BYTES)
        self._memory.uploads.add(upload)
        try:
            async with timeout:
                state.body = await self._read_pieces(upload, receive, share)
        except TimeoutError:
            raise BodyTimeoutError from None
        finally:
            self._memory.uploads.discard(upload)
        state.is_body_pending = False

    async def _read_pieces(self, upload: Upload, receive: Receive, share: contextlib.AsyncExitStack) -> bytes:
        message = await _receive(receive)
        body: bytes = message.get("body", b"")
        if not message.get("more_body") and len(body) <= self._most:
            return body
        upload.received += body
        while message.get("more_body"):
            if not upload.is_shared and len(upload.received) > SMALL_BYTES:
                # Its length is unknown, so it gets as much as it may have.
                await share.enter_async_context(self._memory.share(self._most))
                upload.is_shared = True
            message = await _receive(receive)
            upload.received += message.get("body", b"")
            if len(upload.received) > self._most:
                break
        if len(upload.received) > self._most:
            raise InputTooLargeError(self._most)
        return bytes(upload.received)


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
