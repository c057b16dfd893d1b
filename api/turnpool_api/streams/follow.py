"""Event streams: subscribe, then the log, then live. No hole, no double.

Each yield is a number of whole frames in one piece of bytes.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from turnpool.errors import SessionNotFoundError, StoreAwayError, TurnNotFoundError, TurnpoolError
from turnpool.events import is_terminal, seq_of, with_id
from turnpool.ids import number_of
from turnpool.store.store import Store
from turnpool_api import metrics
from turnpool_api.streams.budget import LEAST_SHARE
from turnpool_api.streams.cursor import Cursor
from turnpool_api.streams.position import Place
from turnpool_api.streams.subscription import ClosingError, Subscription

# Milliseconds a client waits before it connects again.
RETRY = b"retry: 1000\n\n"
PING = b": ping\n\n"
# Seconds of silence before a ping. Proxies close what is silent for 30 to 60 s.
PING_SECONDS = 15.0
# Seconds between tries to read while Redis is away; the stream stays open.
AWAY_PAUSE = 0.5
# Seconds that a new turn's answer waits for the turn's first event.
FIRST_SECONDS = 0.1
# Seconds between looks at the log while nothing is heard. There may be thousands of streams.
LOOK_SECONDS = 3.0


class Silence:
    """How long a stream's client has heard nothing."""

    def __init__(self) -> None:
        self._time = asyncio.get_running_loop().time
        self.broken()

    def broken(self) -> None:
        """It has heard something. `until`: when it needs a ping (loop time)."""
        self.until = self._time() + PING_SECONDS

    def is_due(self) -> bool:
        """Whether it gets a ping now."""
        if not _is_past(self.until):
            return False
        self.broken()
        return True


async def turn_stream(
    store: Store, subscription: Subscription, turn_id: str, tenant: str, after: int, *, heard: bool = False
) -> AsyncGenerator[bytes, None]:
    """Events of a turn with a seq over `after`, to the terminal one.

    `subscription`: to its session; it is left in the end. `heard`: it was in force before the turn was
    accepted, so that the log has nothing more.
    """
    with subscription:
        if heard:
            # Its first event is on its way; both are one write then.
            await subscription.comes(asyncio.get_running_loop().time() + FIRST_SECONDS)
        yield RETRY
        place, silence = Place(after), Silence()
        n = number_of(turn_id)
        await subscription.soon()
        while not (subscription.closing or place.over):
            try:
                if not heard:
                    async for frames in _logged(store, subscription, turn_id, tenant, place):
                        yield _joined(frames)
                        silence.broken()
                heard = False
                async for frames in _live(subscription, n, place, silence):
                    yield _joined(frames)
            except ClosingError:
                break
            except StoreAwayError:
                await _pause(subscription)
            if silence.is_due():
                yield PING
        if not place.ended:
            yield RETRY


async def _logged(
    store: Store, subscription: Subscription, turn_id: str, tenant: str, place: Place
) -> AsyncIterator[list[bytes]]:
    """What the log has after the place. Only where it has nothing is looked whether there will be more."""
    found = False
    while not place.over:
        subscription.catch_up()
        subscription.skip_waiting()
        if not (frames := await _page(store, subscription, turn_id, tenant, place.after)):
            break
        found = True
        if new := place.advance(frames):
            yield new
    if found or place.over:
        return
    read = subscription.abort_on_shutdown
    try:
        await read(store.check_log, turn_id, tenant)
        turn = await read(store.progress, turn_id, tenant)
    except StoreAwayError:
        raise
    except TurnpoolError:
        place.over = True
        return
    if turn.seq < place.after:
        place.go_back(turn.seq - turn.status.terminal)
        subscription.fall_behind()
    elif turn.status.terminal and turn.seq == place.after:
        place.over = True


async def _page(
    store: Store, subscription: Subscription, turn_id: str, tenant: str, after: int
) -> list[bytes]:
    """The next events in a turn's log, as many as the stream may hold."""
    frames = await subscription.abort_on_shutdown(
        store.frames, turn_id, tenant, after, subscription.reserve()
    )
    subscription.hold(sum(map(len, frames)))
    return frames


def _joined(frames: list[bytes]) -> bytes:
    """The frames as one piece. The list is emptied: while a slow client takes the piece, it is there once."""
    piece = b"".join(frames)
    frames.clear()
    return piece


async def _live(
    subscription: Subscription, n: int, place: Place, silence: Silence
) -> AsyncIterator[list[bytes]]:
    """What comes for turn n, in order; ends where something is missing, and when it is time for a look."""
    until = _next_look(subscription, silence)
    while subscription.live() and not place.over:
        taken = await subscription.take(until)
        frames, seq = [], place.after
        for number, frame in taken:
            if number != n or (found := seq_of(frame)) <= seq:
                continue
            if found > seq + 1:
                metrics.CATCH_UPS.labels("gap").inc()
                subscription.fall_behind()
                break
            frames.append(frame)
            seq += 1
        taken.clear()
        if frames and (new := place.advance(frames)):
            yield new
            silence.broken()
            until = silence.until
        elif _is_past(until):
            return


async def session_stream(
    store: Store, subscription: Subscription, session_id: str, tenant: str, cursor: Cursor
) -> AsyncGenerator[bytes, None]:
    """Events of all turns of a session after the cursor; ends with the client, the process or the session.

    `subscription`: to the session; it is left in the end.
    """
    with subscription:
        yield RETRY
        silence = Silence()
        await subscription.soon()
        while not subscription.closing:
            try:
                async for piece in _logged_session(store, subscription, session_id, tenant, cursor):
                    yield piece
                    silence.broken()
                async for piece in _live_session(subscription, cursor, silence):
                    yield piece
            except SessionNotFoundError:
                return
            except ClosingError:
                break
            except StoreAwayError:
                await _pause(subscription)
            if silence.is_due():
                yield PING
        yield RETRY


async def _logged_session(
    store: Store, subscription: Subscription, session_id: str, tenant: str, cursor: Cursor
) -> AsyncIterator[bytes]:
    """What the logs have after the cursor. Raises SessionNotFoundError once the session is gone."""
    subscription.catch_up()
    read = subscription.abort_on_shutdown
    await read(store.check_session, session_id, tenant)
    newest = await read(store.newest, session_id, tenant)
    cursor.know(newest)
    for n in cursor.unfinished(newest):
        turn_id = f"{session_id}.{n}"
        frames = await _page(store, subscription, turn_id, tenant, cursor.seq(n))
        if not frames and cursor.seq(n) and await read(_is_cut, store, turn_id, tenant, cursor, n):
            frames = await _page(store, subscription, turn_id, tenant, cursor.seq(n))
        while frames:
            ended = is_terminal(frames[-1])
            for piece in _pieces(_numbered(cursor, n, frames)):
                yield piece
            if ended:
                break
            frames = await _page(store, subscription, turn_id, tenant, cursor.seq(n))
        cursor.seen(n)


async def _is_cut(store: Store, turn_id: str, tenant: str, cursor: Cursor, n: int) -> bool:
    """Whether the log ends before what the client has, which has not seen the turn's end: go back there."""
    try:
        turn = await store.progress(turn_id, tenant)
    except TurnNotFoundError:
        return False
    return cursor.go_back(n, turn.seq - turn.status.terminal)


async def _live_session(subscription: Subscription, cursor: Cursor, silence: Silence) -> AsyncIterator[bytes]:
    """What comes for any turn, in order; ends where something is missing, and when it is time for a look."""
    until = _next_look(subscription, silence)
    while subscription.live():
        taken = await subscription.take(until)
        given = False
        for piece in _pieces(_following(subscription, cursor, taken)):
            given = True
            yield piece
        taken.clear()
        if given:
            silence.broken()
            until = silence.until
        elif _is_past(until):
            return


def _following(subscription: Subscription, cursor: Cursor, taken: list[tuple[int, bytes]]) -> Iterator[bytes]:
    """Of live events those that the client gets, up to the first before which something is missing."""
    for n, frame in taken:
        if cursor.missing(n, seq_of(frame)):
            metrics.CATCH_UPS.labels("gap").inc()
            subscription.fall_behind()
            return
        if cursor.is_next(n, seq_of(frame)):
            yield from _numbered(cursor, n, [frame])


def _numbered(cursor: Cursor, n: int, frames: list[bytes]) -> Iterator[bytes]:
    """Of a turn's next frames those that the client gets, each with the cursor after it as its id."""
    return (with_id(frame, cursor.encode()) for frame in frames if cursor.advance(n, frame))


def _pieces(frames: Iterator[bytes]) -> Iterator[bytes]:
    """The frames in pieces of some size: ids can make them much larger than what was read."""
    piece: list[bytes] = []
    size = 0
    for frame in frames:
        piece.append(frame)
        size += len(frame)
        if size >= LEAST_SHARE:
            yield _joined(piece)
            size = 0
    if piece:
        yield _joined(piece)


def _next_look(subscription: Subscription, silence: Silence) -> float:
    """When the log is looked at though nothing is known to be missing (loop time): with each ping, at least.

    What comes for other turns of the session breaks no silence.
    """
    if subscription.is_confirmed:
        return silence.until
    return min(silence.until, asyncio.get_running_loop().time() + LOOK_SECONDS)


def _is_past(time: float) -> bool:
    return asyncio.get_running_loop().time() >= time


async def _pause(subscription: Subscription) -> None:
    """Wait before Redis is asked again."""
    with contextlib.suppress(ClosingError):
        await subscription.abort_on_shutdown(asyncio.sleep, AWAY_PAUSE)
