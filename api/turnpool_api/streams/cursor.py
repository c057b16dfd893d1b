"""The place in a session's event stream.

Turns overlap (one waits while another runs), so it is a place in each turn that has not ended.
Written as `<highest turn seen>` and `,<n>:<seq>` for each unfinished turn: `7,6:41,7:1`. It is the
SSE id, opaque to clients.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Self

from turnpool.errors import TurnpoolError
from turnpool_api.streams.position import Place

FORMAT = re.compile(r"\d{1,15}(,\d{1,15}:\d{1,15}){0,1000}", re.ASCII)


class BadEventIdError(TurnpoolError):
    """A Last-Event-ID is not one that this stream gave."""

    code = "bad_cursor"

    def __init__(self) -> None:
        super().__init__("Last-Event-ID (or after) is not an id of this stream; leave it out to start anew.")


class Cursor:
    """How far a stream is in each turn."""

    def __init__(self, highest: int, places: dict[int, Place]) -> None:
        self._highest = highest
        self._places = places
        # Whether the session was looked at: from then on it cannot be another of the same name.
        self._known = False

    @classmethod
    def at(cls, newest: int, unfinished: Iterable[int]) -> Self:
        """Where a new stream starts: at the beginning of each unfinished turn."""
        return cls(newest, {n: Place(0) for n in unfinished})

    @classmethod
    def decode(cls, text: str) -> Self:
        """From an SSE id. Raises BadEventIdError."""
        if not FORMAT.fullmatch(text):
            raise BadEventIdError
        highest, *places = text.split(",")
        pairs = (place.partition(":") for place in places)
        return cls(int(highest), {int(n): Place(int(seq)) for n, _, seq in pairs})

    def encode(self) -> bytes:
        """As an SSE id."""
        places = (f",{n}:{place.seen}" for n, place in sorted(self._places.items()))
        return f"{self._highest}{''.join(places)}".encode()

    def know(self, newest: int) -> None:
        """The session's newest turn. If the client has seen a newer one, that is gone.

        Either the server has lost it, or the session had long been gone itself and starts anew: so it is
        taken when a client comes with such an id.
        """
        if self._highest > newest:
            self._highest = newest if self._known else 0
            self._places = {n: place for n, place in self._places.items() if n <= self._highest}
        self._known = True

    def unfinished(self, newest: int) -> Iterator[int]:
        """Turns that may have events to come, up to the newest, in order; a session can have a million."""
        unseen = range(self._highest + 1, newest + 1)
        return itertools.chain(sorted(n for n in self._places if n not in unseen), unseen)

    def seq(self, n: int) -> int:
        """The last event of a turn that is not read again."""
        return self._places[n].after if n in self._places else 0

    def missing(self, n: int, seq: int) -> bool:
        """Whether there are events before this one that were not seen."""
        if n > self._highest:
            return n > self._highest + 1 or seq > 1
        return n in self._places and seq > self._places[n].after + 1

    def is_next(self, n: int, seq: int) -> bool:
        """Whether this event was not seen yet."""
        if n > self._highest:
            return True
        return n in self._places and seq > self._places[n].after

    def seen(self, n: int) -> None:
        """The turn has been read; it is known, even if its log was empty."""
        self._highest = max(self._highest, n)

    def advance(self, n: int, frame: bytes) -> bool:
        """The turn's next event in the log; gives whether the client gets it."""
        self._highest = max(self._highest, n)
        place = self._places.setdefault(n, Place(0))
        told = bool(place.advance([frame]))
        if place.ended:
            del self._places[n]
        return told

    def go_back(self, n: int, seq: int) -> bool:
        """The turn's log has no more than this before its end; gives whether the client had more."""
        if self.seq(n) <= seq:
            return False
        self._places[n].go_back(seq)
        return True
