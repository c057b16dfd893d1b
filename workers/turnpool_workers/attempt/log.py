"""The events of one running turn on their way to the log."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from turnpool.events import Entry, delta
from turnpool.logs import get_logger
from turnpool.store.store import Held

log = get_logger(__name__)

# Bytes of a turn that may wait for Redis; its agent waits beyond that.
MAX_WAITING = 256 * 1024
# Bytes of a turn's last events that are kept after they were written: a server that restarts or takes
# over may have lost them, though clients have seen them. Some seconds of a fast model.
KEPT = 32 * 1024
# What an event takes besides its fields.
OVERHEAD = 100


class Flusher(Protocol):
    """Who takes what is to be written."""

    def want(self, turn: "TurnLog", *, now: bool) -> None:
        """The turn has something to write."""

    def forget(self, turn: "TurnLog") -> None:
        """The turn ends."""


class TurnLog:
    """Collects text and events until they are flushed.

    `on_lost` is called once the attempt turns out to be stale.
    """

    def __init__(self, writer: Flusher, held: Held, on_lost: Callable[[], None]) -> None:
        self.held = held
        self._output = ""
        self._writer = writer
        self._on_lost = on_lost
        self._entries: list[Entry] = []
        self._text: list[str] = []
        # The first half of a surrogate pair: providers cut pairs between two pieces of text.
        self._half = ""
        self._waiting = self._flying = 0
        self._kept: deque[Entry] = deque()
        self._kept_size = 0
        self._flushing = False
        # Made when it is waited for, which is seldom.
        self._changed: asyncio.Event | None = None
        self._first = True
        self.closed = False

    @property
    def output(self) -> str:
        """The answer so far."""
        self._seal()
        return self._output

    @output.setter
    def output(self, text: str) -> None:
        self._seal()
        self._half = ""
        self._output = text

    def text(self, text: str) -> None:
        """More of the answer."""
        if self.closed:
            return
        self._text.append(text)
        self._waiting += len(text)
        # What comes behind it before the flush is written with it.
        if len(self._text) == 1:
            self._writer.want(self, now=self._first)
            self._first = False

    def event(self, entry: Entry) -> None:
        """An event between the text."""
        if self.closed:
            return
        self._seal_half()
        self._entries.append(entry)
        self._waiting += _size(entry)
        self._writer.want(self, now=True)

    @property
    def full(self) -> bool:
        """Whether so much waits that no more should come."""
        return self._waiting > MAX_WAITING

    async def room(self) -> None:
        """Wait until there is room again."""
        while self.full and not self.closed:
            await self._change()

    def refuse(self) -> None:
        """No more flushes, and nothing more is taken."""
        self._writer.forget(self)
        self.closed = True
        self._tell()

    async def close(self) -> list[Entry]:
        """What is not written yet, for the script that ends the turn."""
        self.refuse()
        while self._flushing:
            await self._change()
        self._seal_half()
        return self._take()

    def begin(self) -> tuple[Held, list[Entry]]:
        """What is to be flushed now."""
        self._flushing = True
        self._flying = self._waiting
        return self.held, self._take()

    def put_back(self, entries: list[Entry]) -> None:
        """These could not be written; they come before what came meanwhile."""
        self._entries[:0] = entries
        self._flushing = False
        self._tell()
        if not self.closed:
            self._writer.want(self, now=False)

    def end(self, entries: list[Entry], *, holds: bool) -> None:
        """These are written, or the attempt does not hold the turn any more."""
        held = self.held
        self.held = Held(held.turn_id, held.attempt, held.seq + len(entries))
        self._keep(entries)
        self._waiting -= self._flying
        self._flushing = False
        self._tell()
        if not holds:
            self._on_lost()

    def rewind(self, seq: int, entries: list[Entry]) -> None:
        """The log ends at `seq`: what was lost after it is to be written again, then these."""
        lost = self.missing_since(seq)
        if lost is None:
            self.end([], holds=False)
        else:
            self.put_back([*lost, *entries])

    def missing_since(self, seq: int) -> list[Entry] | None:
        """Go back to `seq`: what was written after it, None if that is not known any more."""
        count = self.held.seq - seq
        log.warning("events_lost", turn=self.held.turn_id, events=count, kept=len(self._kept))
        if count > len(self._kept):
            return None
        lost = [self._kept.pop() for _ in range(count)][::-1]
        self._kept_size -= sum(map(_size, lost))
        self.held = self.held._replace(seq=seq)
        return lost

    async def _change(self) -> None:
        """Wait until a flush has ended, or the log is closed."""
        self._changed = self._changed or asyncio.Event()
        await self._changed.wait()

    def _tell(self) -> None:
        if self._changed:
            self._changed.set()
            self._changed = None

    def _keep(self, entries: list[Entry]) -> None:
        self._kept.extend(entries)
        self._kept_size += sum(map(_size, entries))
        # The last flush, whatever its size: a server that dies is most likely to lose just that.
        while self._kept_size > KEPT and len(self._kept) > len(entries):
            self._kept_size -= _size(self._kept.popleft())

    def _seal(self) -> None:
        if self._text:
            text, self._half = _whole(self._half + "".join(self._text))
            self._text.clear()
            if text:
                self._output += text
                self._entries.append(delta(text))

    def _seal_half(self) -> None:
        """As `_seal`; no other half follows."""
        self._seal()
        if self._half:
            self._half, text = "", "\ufffd"
            self._output += text
            self._entries.append(delta(text))

    def _take(self) -> list[Entry]:
        self._seal()
        entries, self._entries = self._entries, []
        return entries


def _size(entry: Entry) -> int:
    return len(entry.fields) + OVERHEAD


def _whole(text: str) -> tuple[str, str]:
    """The text as it can be written in UTF-8, and the half of a surrogate pair that it ends with."""
    try:
        text.encode()
    except UnicodeEncodeError:
        half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        text = text.removesuffix(half)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), half
    return text, ""
