"""Writes the events of all turns of a worker: coalesced, in one pipeline of few calls per flush.

The first text of a turn goes out at once, so do tool events; then what has come in the flush
interval goes out as one event. The interval grows with the time a flush takes, so that flushing
never fills the loop. When Redis is away, what comes is kept and written when it is back.
"""

import asyncio
import math
import time

from turnpool.errors import EventsLostError, StoreAwayError
from turnpool.events import Entry
from turnpool.logs import get_logger
from turnpool.store.store import Held, Store
from turnpool_workers.attempt.log import TurnLog

log = get_logger(__name__)

# Of the time, at most a twentieth goes to flushing: each piece of text costs Redis and the API about as much,
# however much is in it.
FLUSH_SHARE = 20
# Seconds. Text waits no longer than this, however great the load, unless TURNPOOL_FLUSH_MS is longer.
MAX_INTERVAL = 0.2
# Seconds between tries while Redis is away.
AWAY_PAUSE = 0.1
# Turns in one pipeline. Under load each pipeline takes a turn of a loop that has much to do: the text of a
# thousand turns came 60 ms later in two of 500.
PIPELINE_TURNS = 2000


class Writer:
    """The one task that flushes."""

    def __init__(self, store: Store, flush_seconds: float) -> None:
        self._store = store
        self._shortest = flush_seconds
        self._interval = flush_seconds
        self._quickest = math.inf
        # Dicts as ordered sets: what came first goes first.
        self._urgent: dict[TurnLog, None] = {}
        self._due: dict[TurnLog, None] = {}
        self._wake = asyncio.Event()

    def want(self, turn: TurnLog, *, now: bool) -> None:
        """The turn has something to write, now or within the interval."""
        if now:
            self._due.pop(turn, None)
            self._urgent[turn] = None
            self._wake.set()
        elif turn not in self._urgent:
            if not self._due and not self._urgent:
                self._wake.set()
            self._due[turn] = None

    def forget(self, turn: TurnLog) -> None:
        """The turn ends; its script writes the rest."""
        self._urgent.pop(turn, None)
        self._due.pop(turn, None)

    async def run(self) -> None:
        """Flush until cancelled."""
        next_flush = time.monotonic()
        while True:
            await self._wait(next_flush)
            started = time.monotonic()
            if everything := started >= next_flush:
                self._urgent.update(self._due)
                self._due.clear()
            away = await self._flush()
            if everything or away:
                took = time.monotonic() - started
                # The quickest so far tells how far away Redis is, which is no load.
                self._quickest = min(self._quickest, took)
                share = FLUSH_SHARE * (took - self._quickest)
                self._interval = max(self._shortest, min(share, MAX_INTERVAL))
                next_flush = started + took + AWAY_PAUSE if away else started + self._interval

    async def _wait(self, next_flush: float) -> None:
        """Until something is urgent, or due and it is time."""
        while not self._urgent:
            self._wake.clear()
            timeout = max(next_flush - time.monotonic(), 0) if self._due else None
            if timeout == 0:
                return
            try:
                await asyncio.wait_for(self._wake.wait(), timeout)
            except TimeoutError:
                return

    async def _flush(self) -> bool:
        """Write what is urgent; whether Redis, or a node of it, was away: then that comes again."""
        turns = list(self._urgent)
        self._urgent.clear()
        away = False
        for start in range(0, len(turns), PIPELINE_TURNS):
            part = [turn for turn in turns[start : start + PIPELINE_TURNS] if not turn.closed]
            batches = [turn.begin() for turn in part]
            replies = await self._write(batches)
            for turn, (_, entries), reply in zip(part, batches, replies, strict=True):
                if isinstance(reply, EventsLostError):
                    turn.rewind(reply.seq, entries)
                elif isinstance(reply, StoreAwayError):
                    away = True
                    turn.put_back(entries)
                else:
                    turn.end(entries, holds=reply is True)
        return away

    async def _write(self, batches: list[tuple[Held, list[Entry]]]) -> list[bool | Exception]:
        """Write: for each turn whether its attempt holds, or why that is not known."""
        try:
            replies = await self._store.append(batches)
        except Exception as failure:  # noqa: BLE001 - the same for all; told below
            replies = [failure] * len(batches)
        errors = {str(reply): reply for reply in replies if isinstance(reply, Exception)}
        for error in errors.values():
            if isinstance(error, EventsLostError):
                continue  # told by the turn
            if isinstance(error, StoreAwayError):
                log.warning("redis_away", turns=len(batches), error=error.reason)
            else:
                # These turns are taken up again by a later attempt; the others go on.
                log.error("append_failed", turns=len(batches), exc_info=error)
        return replies
