"""Event streams: subscribe, then the log, then live. No hole, no double.

Each yield is a number of whole frames in one piece of bytes.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from api import metrics
from api.cursor import Cursor
from api.relay import Relay
from api.subscription import Subscription
from turnpool.errors import SessionNotFoundError, TurnpoolError
from turnpool.events import is_terminal, seq_of, with_id
from turnpool.redis import is_away
from turnpool.store import Store

T = TypeVar("T")

# Milliseconds a client waits before it connects again.
RETRY = b"retry: 1000\n\n"
PING = b": ping\n\n"
# Seconds of silence before a ping. Proxies close what is silent for 30 to 60 s.
PING_SECONDS = 15.0
# Seconds between tries to read while Redis is away; the stream stays open.
AWAY_PAUSE = 0.5


async def turn_stream(
    store: Store, relay: Relay, turn_id: str, tenant: str, after: int
) -> AsyncGenerator[bytes, None]:
    """Events of a turn with a seq over `after`, to the terminal one."""
    head = RETRY
    session_id, _, n = turn_id.rpartition(".")
    async with relay.subscribe(session_id) as subscription:
        while True:
            subscription.catch_up()
            before = after
            while frames := await _patiently(lambda: store.frames(turn_id, after)):  # noqa: B023 - awaited at once
                after = seq_of(frames[-1])
                yield head + b"".join(frames)
                head = b""
                if is_terminal(frames[-1]):
                    return
            if head:
                yield head
                head = b""
            if after == before and await _over(store, turn_id, tenant, after):
                return
            async for frames in _live(subscription, int(n), after):
                if not frames:
                    if subscription.closing or await _over(store, turn_id, tenant, after):
                        yield RETRY
                        return
                    yield PING
                    break
                after = seq_of(frames[-1])
                yield b"".join(frames)
                if is_terminal(frames[-1]):
                    return


async def _live(subscription: Subscription, n: int, after: int) -> AsyncIterator[list[bytes]]:
    """What comes for turn n, in order; ends where something is missing. Nothing means silence."""
    now = asyncio.get_running_loop().time
    # Counted from the last yield: what comes for the session's other turns breaks no silence.
    silent_until = now() + PING_SECONDS
    while not subscription.behind:
        taken = await subscription.take(silent_until)
        frames = []
        for number, frame in taken:
            seq = seq_of(frame)
            if number != n or seq <= after:
                continue
            if seq > after + 1:
                metrics.CATCH_UPS.labels("gap").inc()
                subscription.fall_behind()
                break
            frames.append(frame)
            after = seq
        if frames or subscription.closing or (now() >= silent_until and not subscription.behind):
            yield frames
            silent_until = now() + PING_SECONDS


async def session_stream(
    store: Store, relay: Relay, session_id: str, tenant: str, cursor: Cursor
) -> AsyncGenerator[bytes, None]:
    """Events of all turns of a session after the cursor; ends with the client, the process or the session."""
    yield RETRY
    async with relay.subscribe(session_id) as subscription:
        while not subscription.closing:
            subscription.catch_up()
            if await _gone(store, session_id, tenant):
                return
            newest = await _patiently(lambda: store.newest(session_id))
            cursor.restart_beyond(newest)
            for n in cursor.unfinished(newest):
                turn_id = f"{session_id}.{n}"
                while frames := await _patiently(lambda: store.frames(turn_id, cursor.seq(n))):  # noqa: B023
                    yield b"".join(_numbered(cursor, n, frame) for frame in frames)
                    if is_terminal(frames[-1]):
                        break
                cursor.seen(n)
            async for piece in _live_session(subscription, cursor):
                yield piece or PING
    yield RETRY


async def _live_session(subscription: Subscription, cursor: Cursor) -> AsyncIterator[bytes]:
    """What comes for any turn, in order; ends where something is missing, or after a silence (no bytes)."""
    now = asyncio.get_running_loop().time
    silent_until = now() + PING_SECONDS
    while subscription.live():
        taken = await subscription.take(silent_until)
        frames = []
        for n, frame in taken:
            if cursor.missing(n, seq_of(frame)):
                metrics.CATCH_UPS.labels("gap").inc()
                subscription.fall_behind()
                break
            if cursor.is_next(n, seq_of(frame)):
                frames.append(_numbered(cursor, n, frame))
        if frames:
            yield b"".join(frames)
            silent_until = now() + PING_SECONDS
        elif subscription.live() and now() >= silent_until:
            yield b""
            return


def _numbered(cursor: Cursor, n: int, frame: bytes) -> bytes:
    """The frame with the cursor after it as its id."""
    cursor.advance(n, seq_of(frame), ended=is_terminal(frame))
    return with_id(frame, cursor.encode())


async def _gone(store: Store, session_id: str, tenant: str) -> bool:
    """Whether the session was deleted or has expired."""
    try:
        await _patiently(lambda: store.session(session_id, tenant))
    except SessionNotFoundError:
        return True
    return False


async def _over(store: Store, turn_id: str, tenant: str, after: int) -> bool:
    """Whether no event will come any more: the turn's last one was before, or its log is gone."""
    try:
        await _patiently(lambda: store.check_log(turn_id, tenant))
        turn = await _patiently(lambda: store.turn(turn_id, tenant))
    except TurnpoolError:
        return True
    return turn.status.terminal and turn.seq <= after


async def _patiently(read: Callable[[], Awaitable[T]]) -> T:
    """Read, and again while Redis is away."""
    while True:
        try:
            return await read()
        except (RedisError, OSError) as error:
            if not is_away(error):
                raise
            await asyncio.sleep(AWAY_PAUSE)
