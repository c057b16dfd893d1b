"""HTTP/1.1 on one connection: uvicorn's protocol, hardened for requests from anybody.

llhttp stays the only parser. Deliberately odd:

- httptools takes a request that offers an upgrade as complete at its headers, and uvicorn then reads its body
  as the next request. An offer that is not taken must be ignored (RFC 9110, 7.8), so the head is parsed again
  without it, and the rest of the bytes follows.
- Private parts of uvicorn are used; pyproject.toml caps its version, and a test checks that they are there.
- Pipelined requests are parsed in small pieces, when those before them are answered: a megabyte of them would
  otherwise be 50,000 requests in memory.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from turnpool_api import metrics
from turnpool_api.http import refusals
from turnpool_api.http.back_pressure import bound_buffer
from turnpool_api.http.connections import Connections, Slot
from turnpool_api.http.heads import check_head
from turnpool_api.http.reading import BODY, HEAD, IDLE, ReadControl, RefusedError, Unread
from turnpool_api.http.refusals import Refusal
from turnpool_api.http.transport import Corked

# Bytes of path and query; RFC 9110 recommends 8,000 at least.
MAX_TARGET_BYTES = 8192
# Bytes given to the parser at once while it reads a head: at most 100 requests fit.
HEAD_PIECE_BYTES = 2048
# How long, and for how many bytes, a refused request is still read: its client has to get the answer.
LINGER_SECONDS = 2.0
LINGER_BYTES = 16_000_000


class Protocol(HttpToolsProtocol):
    """One connection. `deadline` is in the loop's time; see `check`."""

    # What every connection starts with; a connection has its own only once it differs.
    _phase = IDLE
    # Read, but not parsed: see the module's docstring.
    _held = b""
    # The parser is not fed any more, whatever is still read.
    _is_stopped = False
    _active: RequestResponseCycle | None = None
    _upgrade_offered = False
    # Bytes of the head so far, or of chunk headers and trailers since the last byte of the body.
    _overhead = 0
    _body_came = False
    _trailers = 0
    _discarded = 0
    _unread: Unread | None = None

    def __init__(
        self,
        config: Config,
        state: ServerState,
        app_state: dict[str, Any],
        connections: Connections,
        slot: Slot,
    ) -> None:
        super().__init__(config, state, app_state)
        self._registry, self._settings, self._slot = connections, connections.settings, slot
        self.headers = []
        self.deadline = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's. A client that then says nothing is cut off."""
        bound_buffer(transport)
        super().connection_made(cast("asyncio.Transport", Corked(transport, self._lingers)))
        self.flow = ReadControl(self.transport)
        self._registry.open.add(self)
        self.deadline = self.loop.time() + self._settings.header_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn's, which tells only the newest of several requests, and may leave its timer."""
        self._registry.open.discard(self)
        self._slot.release()
        self._is_stopped, self._phase, self._held = True, IDLE, b""
        for cycle in [self._active, *(queued for queued, _ in self.pipeline)]:
            if cycle and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._active = None
        self.transport.forget_owner()  # type: ignore[attr-defined]

    # -- reading

    def data_received(self, data: bytes) -> None:
        """Parse, unless the parser has stopped: then the bytes are of no request."""
        if self._is_stopped:
            self._discarded += len(data)
            if self._discarded > LINGER_BYTES:
                self.transport.abort()
            return
        self._held += data
        self._parse()

    def _parse(self) -> None:
        self._unset_keepalive_if_required()
        held: bytes | memoryview = self._held
        if len(held) > HEAD_PIECE_BYTES:
            held = memoryview(held)
        self._held = b""
        if held and self._phase is IDLE:
            self._begin_head()
        while held and not self._is_stopped:
            if self.pipeline:
                self._hold(bytes(held))
                return
            size = len(held) if self._phase is BODY else HEAD_PIECE_BYTES
            self._feed(held[:size])
            held = held[size:]
        self.flow.is_held = False  # type: ignore[attr-defined]

    def _hold(self, data: bytes) -> None:
        self._held = data
        self.flow.pause_reading()
        self.flow.is_held = True  # type: ignore[attr-defined]

    def _feed(self, data: bytes | memoryview) -> None:
        size, was_in_body = len(data), self._phase is BODY
        self._body_came = False
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as offer:
                    data = data[offer.args[0] :]
                    self._ignore_upgrade()
        except httptools.HttpParserError as error:
            if not self._is_stopped:
                cause = error.__context__
                self._refuse(cause.refusal if isinstance(cause, RefusedError) else refusals.BAD_REQUEST)
            return
        # Where in the bytes a head begins is not known, so those that began in a body do not count.
        if self._phase is HEAD and not was_in_body:
            self._overhead += size
        elif self._phase is BODY:
            self._overhead = 0 if self._body_came else self._overhead + size
        is_too_long = self._overhead > self._settings.max_header_bytes
        if is_too_long or (self._phase is HEAD and len(self.headers) > self._settings.max_headers):
            self._refuse(refusals.HEADERS_TOO_LARGE)

    def _ignore_upgrade(self) -> None:
        """Parse the head again without its offer. A WebSocket would be accepted here instead (issue 17)."""
        self._upgrade_offered = False
        version, method, target, headers = (
            self.parser.get_http_version(),
            self.parser.get_method(),
            self.url,
            self.headers,
        )
        head = [method, b" ", target, b" HTTP/", version.encode(), b"\r\n"]
        for name, value in headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"".join([*head, b"\r\n"]))

    # -- called by the parser

    def on_message_begin(self) -> None:
        """As uvicorn's; nothing is served after a request that closes its connection."""
        if self._active and not self.cycle.keep_alive:
            self._is_stopped = True
            raise RefusedError(refusals.BAD_REQUEST)
        super().on_message_begin()
        if self._phase is not HEAD:
            self._begin_head()

    def on_url(self, url: bytes) -> None:
        """As uvicorn's, up to the limit."""
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            raise RefusedError(refusals.TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn's, written out, as it is called most. Trailers are ignored: they arrive too late."""
        if self._phase is BODY:
            self._trailers += 1
            if self._trailers > self._settings.max_headers:
                raise RefusedError(refusals.HEADERS_TOO_LARGE)
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """As uvicorn's, for a request that may be served."""
        if len(self.headers) > self._settings.max_headers:
            raise RefusedError(refusals.HEADERS_TOO_LARGE)
        version, method = self.parser.get_http_version(), self.parser.get_method()
        target, refusal = check_head(version, method, self.url, self.headers)
        if refusal:
            raise RefusedError(refusal)
        if self.parser.should_upgrade():
            self._upgrade_offered = True
            return
        self.url = target
        self._phase, self.deadline = BODY, self.loop.time() + self._settings.body_seconds
        self._overhead = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """As uvicorn's."""
        self._body_came = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """As uvicorn's."""
        if self._upgrade_offered:
            return
        super().on_message_complete()
        self._phase, self.deadline = IDLE, math.inf

    # -- answering

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Callable[..., Any]) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As uvicorn's; then parse what waited for it."""
        super().on_response_complete()
        if self._held and not self.pipeline:
            self.loop.call_soon(self._parse)
        elif self._phase is HEAD:
            self.deadline = self.loop.time() + self._settings.header_seconds

    def _begin_head(self) -> None:
        self._phase = HEAD
        self._overhead = self._trailers = 0
        self.deadline = self.loop.time() + self._settings.header_seconds

    def _is_busy(self) -> bool:
        return bool(self._active and not self._active.response_complete) or bool(self.pipeline)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer and close, after the answers to the requests before this one."""
        metrics.REFUSED_REQUESTS.labels(refusal.code).inc()
        self._is_stopped = True
        if self._phase is BODY:
            self._drop_request()
        if self._is_busy():
            last = self.pipeline[0][0] if self.pipeline else self._active
            assert last  # noqa: S101 - else it would not be busy
            last.keep_alive = False
        elif not self.transport.is_closing():
            self.transport.write(refusal.response())
            self.transport.close()

    def _drop_request(self) -> None:
        """Its body is broken: it is not served, or no further."""
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
            return
        cycle.disconnected = True
        cycle.message_event.set()
        self._active = None
        if cycle.response_started and not cycle.response_complete:
            self.transport.close()

    # -- ending

    def _lingers(self) -> bool:
        """Whether the client may still be sending what nobody wants to read."""
        if not self._is_stopped and self._phase is not BODY:
            return False
        self._is_stopped, self._held = True, b""
        self.flow.is_held = False  # type: ignore[attr-defined]
        self.flow.resume_reading()
        self.deadline = self.loop.time() + LINGER_SECONDS
        return True

    def check(self, now: float) -> None:
        """End a connection that is silent, sends its head too slowly, or does not read its answer."""
        if now >= self.deadline:
            self._expire()
        if self.flow.write_paused or self.transport.is_closing():
            self._unread = self._unread or Unread()
            unsent = self.transport.get_write_buffer_size()
            if self._unread.is_stuck(unsent, now, self._settings.write_seconds):
                metrics.REFUSED_REQUESTS.labels("unread_answer").inc()
                self.transport.abort()

    def _expire(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()
        elif self._phase is IDLE:
            self.transport.close()
        elif self._phase is BODY:
            self._refuse(refusals.BODY_TIMEOUT)
        elif not self._is_busy():
            # Head and timer of a pipelined request wait for the answer before it.
            self._refuse(refusals.HEAD_TIMEOUT)

    def resume_writing(self) -> None:
        """As uvicorn's."""
        self._unread = None
        super().resume_writing()
