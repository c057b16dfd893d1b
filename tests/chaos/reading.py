"""Checks each frame of a turn that comes to a client, over all its connections."""

import hashlib
import json
from typing import Any, NamedTuple

from tests.acceptance.sse import words
from tests.chaos.book import Book

ENDS = {"turn.completed": "completed", "turn.failed": "failed", "turn.cancelled": "cancelled"}
DELTA = "turn.output_text.delta"
# More than any turn has.
MAX_TOKENS = 1000


class Mark(NamedTuple):
    """An event that is no text, for the checks of times in the end."""

    kind: str
    attempt: int
    at: float
    worker: str = ""
    reason: str = ""


class Reading:
    """What has been read of a turn of so many tokens (None: nobody told how many).

    Ids have to be dense, attempts never go back, nothing comes after the end, and the text is at any
    time the beginning of what the simulated agent says.
    """

    def __init__(self, turn_id: str, tokens: int | None, book: Book) -> None:
        self.turn_id = turn_id
        self.last = 0
        self.text = ""
        self.status = ""
        self.end: dict[str, Any] = {}
        self.marks: list[Mark] = []
        self._whole = words(tokens or MAX_TOKENS)
        self._known = tokens is not None
        self._book = book
        self._attempt = 0
        self._wrong = False
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of all events, to compare two readings of the same turn."""
        return f"{self.last} {self._digest.hexdigest()}"

    def take(self, number: int, kind: str, data: dict[str, Any]) -> None:
        """The next event."""
        place = f"{self.turn_id} event {number} {kind}"
        self._expect(not self.status, "event after the end", place)
        what = "doubled event" if number <= self.last else "hole in a stream"
        self._expect(number == self.last + 1, what, f"{place} after {self.last}")
        named = (data["type"], data["seq"], data["turn_id"])
        self._expect(named == (kind, number, self.turn_id), "event of something else", f"{place}: {named}")
        self._expect(data["attempt"] >= self._attempt, "write of a stale attempt", f"{place}: {data}")
        self.last = number
        self._digest.update(json.dumps(data, sort_keys=True).encode())
        self._follow(kind, data, place)

    def _follow(self, kind: str, data: dict[str, Any], place: str) -> None:
        self._attempt = data["attempt"]
        if kind == DELTA:
            self.text += data["text"]
            self._check_text(place)
            return
        worker, reason = data.get("worker", ""), data.get("reason", "")
        self.marks.append(Mark(kind, self._attempt, data["created_at"], worker, reason))
        if kind == "turn.restarted":
            self._expect(0 <= data["keep"] <= len(self.text), "keep beyond the text", f"{place}: {data}")
            self.text = self.text[: data["keep"]]
        elif kind in ENDS:
            self.status, self.end = ENDS[kind], data
            self._check_end(kind, data, place)

    def _check_text(self, place: str) -> None:
        # Said once; the rest of the turn would only repeat it.
        if not self._wrong and not self._whole.startswith(self.text):
            self._wrong = True
            self._book.violation("wrong text", f"{place}: … {self.text[-40:]!r}")

    def _check_end(self, kind: str, data: dict[str, Any], place: str) -> None:
        if kind == "turn.completed" and self._known:
            self._expect(self.text == self._whole, "wrong text", f"{place}: ended at {self.text[-40:]!r}")
        if kind != "turn.failed":
            same = data["output"] == self.text
            self._expect(same, "output is not what was streamed", f"{place}: {data['output'][-40:]!r}")

    def _expect(self, condition: object, what: str, detail: str) -> None:
        self._book.expect(condition, what, detail)
