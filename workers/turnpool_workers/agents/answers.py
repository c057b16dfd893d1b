"""The body of a successful response as pieces of an answer, whether it is a stream or one JSON object.

What a body is shows in its first character: providers and the proxies before them send streams as JSON or
plain text, and JSON or pages as streams.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

import httpx

from turnpool.agent import FinishReason
from turnpool.errors import ProviderError, TransientProviderError
from turnpool_workers.agents import provider_errors as errors
from turnpool_workers.agents.pieces import BrokenPieceError, Piece, parse, read_piece
from turnpool_workers.agents.sse import BOM, MAX_EVENT_BYTES, EventTooLargeError, SseDecoder, SseEvent

# Seconds for what follows `[DONE]`: a connection that was read to its end can be used again.
DRAIN_TIMEOUT = 1.0
# Bytes of blanks before the first character.
MAX_BLANKS = 64 * 1024
DONE = b"[DONE]"
EVENT_STREAM = "text/event-stream"


async def pieces_of(response: httpx.Response, *, several: bool) -> AsyncGenerator[Piece, None]:
    """Yield the pieces. Raises ProviderError for errors in the body, TransientProviderError for broken ones.

    `several`: the request asked for more than one answer, of which the first is read.
    """
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    # The body's beginning, for the error of one that is no answer.
    head = bytearray()
    data = _noted(response.aiter_bytes(), head)
    try:
        begin = await _beginning(data)
        match begin.lstrip()[:1]:
            case b"{" | b"[":
                yield _whole(await _all(begin, data), several=several)
            case b"<":
                async for _ in data:
                    if len(head) >= errors.MAX_WORDS:
                        break
                raise errors.no_stream(content_type, bytes(head))
            case _:
                async with aclosing(_streamed(begin, data, several=several)) as pieces:
                    any_piece = False
                    async for piece in pieces:
                        any_piece = True
                        yield piece
                if begin.strip() and not any_piece and content_type != EVENT_STREAM:
                    raise errors.no_stream(content_type, bytes(head))
    except EventTooLargeError as error:
        said = f"The model's provider sent {error}."
        raise ProviderError(said, said) from None
    except (httpx.HTTPError, httpx.StreamError, OSError) as error:
        raise errors.disconnected(error) from error


async def _noted(data: AsyncIterator[bytes], head: bytearray) -> AsyncGenerator[bytes, None]:
    """The same data; its beginning is kept in `head`."""
    async for more in data:
        if len(head) < errors.MAX_WORDS:
            head += more[: errors.MAX_WORDS]
        yield more


async def _beginning(data: AsyncIterator[bytes]) -> bytes:
    """The body up to its first character at least, without a byte order mark."""
    begin = b""
    async for more in data:
        begin += more
        text = begin.removeprefix(BOM)
        if (text.strip() and not BOM.startswith(begin)) or len(begin) > MAX_BLANKS:
            break
    return begin.removeprefix(BOM)


async def _all(begin: bytes, data: AsyncIterator[bytes]) -> bytes:
    parts, size = [begin], len(begin)
    async for more in data:
        parts.append(more)
        size += len(more)
        if size > MAX_EVENT_BYTES:
            raise EventTooLargeError
    return b"".join(parts)


def _whole(body: bytes, *, several: bool) -> Piece:
    """The answer of an endpoint that does not stream."""
    piece = _read(SseEvent(b"", body), several=several)
    if piece.is_empty and not piece.is_whole:
        raise errors.no_stream("JSON without an answer", body)
    return piece if piece.finish else piece._replace(finish=FinishReason.STOP)


async def _streamed(
    begin: bytes, data: AsyncIterator[bytes], *, several: bool
) -> AsyncGenerator[Piece, None]:
    """The pieces of a stream, up to `[DONE]`, where an answer that has begun ends without a reason too."""
    has_begun = ended = False
    async with aclosing(_events(begin, data)) as events:
        async for event in events:
            if event.data.startswith(DONE):
                break
            piece = _read(event, several=several)
            has_begun = has_begun or not piece.is_empty
            ended = ended or piece.finish is not None
            yield piece
        else:
            return
    if has_begun and not ended:
        yield Piece(finish=FinishReason.STOP)
    with suppress(TimeoutError, httpx.HTTPError, httpx.StreamError):
        async with asyncio.timeout(DRAIN_TIMEOUT):
            async for _ in data:
                pass


async def _events(begin: bytes, data: AsyncIterator[bytes]) -> AsyncGenerator[SseEvent, None]:
    decoder = SseDecoder()
    for event in decoder.feed(begin):
        yield event
    async for more in data:
        for event in decoder.feed(more):
            yield event
    if last := decoder.close():
        yield last


def _read(event: SseEvent, *, several: bool) -> Piece:
    """The piece that an event is. Raises ProviderError for an error or what is neither."""
    try:
        value = parse(event.data)
        fault = errors.fault_in(value) or (errors.Fault(str(value)) if event.name == b"error" else None)
        if fault:
            raise errors.broke_off(fault)
        piece = read_piece(value, several=several)
    except BrokenPieceError as error:
        raise TransientProviderError(f"The model's provider sent a broken chunk: {error}") from None
    # No UTF-8, no JSON, lists too deep to be read.
    except (ValueError, RecursionError) as error:
        if event.name == b"error":
            words = event.data.decode(errors="replace")[: errors.MAX_WORDS]
            raise errors.broke_off(errors.Fault(words)) from None
        raise TransientProviderError(f"The model's provider sent a broken event: {error}") from error
    if piece.broken:
        raise errors.broke_off(errors.Fault(f"finish_reason {piece.broken!r}"))
    return piece
