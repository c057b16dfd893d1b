"""Event streams: subscribe, then the log, then live. No hole, no double.

Each yield is a number of whole frames in one piece of bytes.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from redis.exceptions import RedisError

from api import metrics
from api.cursor import Cursor
from api.place import Place
from api.relay import Relay
from api.subscription import Subscription
from turnpool.errors import SessionNotFoundError, TurnNotFoundError, TurnpoolError
from turnpool.events import is_terminal, seq_of, with_id
from turnpool.redis import is_away
from turnpool.store import Store

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
    head, place = RETRY, Place(after)
    session_id, _, n = turn_id.rpartition(".")
    async with relay.subscribe(session_id) as subscription:
        async for ping in _until(subscription.in_force):
            yield head + ping
            head = b""
        while not (subscription.closing or place.over):
            try:
                async for frames in _logged(store, subscription, turn_id, tenant, place):
                    yield head + b"".join(frames)
                    head = b""
                if head:
                    yield head
                    head = b""
                async for frames in _live(subscription, int(n), place):
                    yield b"".join(frames) or PING
            except (RedisError, OSError) as error:
                async for ping in _outage(error, subscription, lambda: store.newest(session_id)):
                    yield head + ping
                    head = b""
        if not place.ended:
            yield RETRY


async def _logged(
    store: Store, subscription: Subscription, turn_id: str, tenant: str, place: Place
) -> AsyncIterator[list[bytes]]:
    """What the log has after the place. Only where it has nothing is looked whether there will be more."""
    subscription.catch_up()
    found = False
    while not place.over and (frames := await store.frames(turn_id, place.after)):
        found = True
        if new := place.advance(frames):
            yield new
    if found:
        return
    try:
        await store.check_log(turn_id, tenant)
        turn = await store.turn(turn_id, tenant)
    except TurnpoolError:
        place.over = True
        return
    if turn.seq < place.after:
        place.go_back(turn.seq - turn.status.terminal)
        subscription.fall_behind()
    elif turn.status.terminal and turn.seq == place.after:
        place.over = True


async def _live(subscription: Subscription, n: int, place: Place) -> AsyncIterator[list[bytes]]:
    """What comes for turn n, in order; ends where something is missing, and after a silence (no frames)."""
    now = asyncio.get_running_loop().time
    # Counted from the last yield: what comes for the session's other turns breaks no silence.
    silent_until = now() + PING_SECONDS
    while subscription.live() and not place.over:
        taken = await subscription.take(silent_until)
        frames, seq = [], place.after
        for number, frame in taken:
            if number != n or seq_of(frame) <= seq:
                continue
            if seq_of(frame) > seq + 1:
                metrics.CATCH_UPS.labels("gap").inc()
                subscription.fall_behind()
                break
            frames.append(frame)
            seq += 1
        if frames and (new := place.advance(frames)):
            yield new
            silent_until = now() + PING_SECONDS
        elif subscription.live() and now() >= silent_until:
            yield []
            return


async def session_stream(
    store: Store, relay: Relay, session_id: str, tenant: str, cursor: Cursor
) -> AsyncGenerator[bytes, None]:
    """Events of all turns of a session after the cursor; ends with the client, the process or the session."""
    yield RETRY
    async with relay.subscribe(session_id) as subscription:
        async for ping in _until(subscription.in_force):
            yield ping
        while not subscription.closing:
            try:
                async for piece in _logged_session(store, subscription, session_id, tenant, cursor):
                    yield piece
                async for piece in _live_session(subscription, cursor):
                    yield piece or PING
            except SessionNotFoundError:
                return
            except (RedisError, OSError) as error:
                async for ping in _outage(error, subscription, lambda: store.newest(session_id)):
                    yield ping
    yield RETRY


async def _logged_session(
    store: Store, subscription: Subscription, session_id: str, tenant: str, cursor: Cursor
) -> AsyncIterator[bytes]:
    """What the logs have after the cursor. Raises SessionNotFoundError once the session is gone."""
    subscription.catch_up()
    await store.session(session_id, tenant)
    newest = await store.newest(session_id)
    cursor.restart_beyond(newest)
    for n in cursor.unfinished(newest):
        turn_id = f"{session_id}.{n}"
        frames = await store.frames(turn_id, cursor.seq(n))
        if not frames and cursor.seq(n) and await _is_cut(store, turn_id, tenant, cursor, n):
            frames = await store.frames(turn_id, cursor.seq(n))
        while frames:
            if piece := b"".join(_numbered(cursor, n, frames)):
                yield piece
            if is_terminal(frames[-1]):
                break
            frames = await store.frames(turn_id, cursor.seq(n))
        cursor.seen(n)


async def _is_cut(store: Store, turn_id: str, tenant: str, cursor: Cursor, n: int) -> bool:
    """Whether the log ends before what the client has, which has not seen the turn's end: go back there."""
    try:
        turn = await store.turn(turn_id, tenant)
    except TurnNotFoundError:
        return False
    return cursor.go_back(n, turn.seq - turn.status.terminal)


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
                frames += _numbered(cursor, n, [frame])
        if frames:
            yield b"".join(frames)
            silent_until = now() + PING_SECONDS
        elif subscription.live() and now() >= silent_until:
            yield b""
            return


def _numbered(cursor: Cursor, n: int, frames: list[bytes]) -> list[bytes]:
    """Of a turn's next frames those that the client gets, each with the cursor after it as its id."""
    return [with_id(frame, cursor.encode()) for frame in frames if cursor.advance(n, frame)]


async def _until(event: asyncio.Event) -> AsyncIterator[bytes]:
    """A ping for each silence until the event."""
    while not event.is_set():
        try:
            async with asyncio.timeout(PING_SECONDS):
                await event.wait()
        except TimeoutError:
            yield PING


async def _outage(
    error: Exception, subscription: Subscription, read: Callable[[], Awaitable[Any]]
) -> AsyncIterator[bytes]:
    """A ping for each silence until Redis can be read again, or the process ends. Raises any other error."""
    now = asyncio.get_running_loop().time
    silent_until = now() + PING_SECONDS
    while not subscription.closing:
        if not is_away(error):
            raise error
        await asyncio.sleep(AWAY_PAUSE)
        try:
            await read()
        except (RedisError, OSError) as again:
            error = again
        else:
            return
        if now() >= silent_until:
            yield PING
            silent_until = now() + PING_SECONDS
