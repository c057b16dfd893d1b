"""After the load: every turn and every session, read by REST and compared with what the clients saw."""

from typing import Any

from tests.chaos.book import Book
from tests.chaos.client import Client, Known
from tests.chaos.reading import Mark, Reading

TERMINAL = ("completed", "failed", "cancelled")
STARTED, RESTARTED = "turn.in_progress", "turn.restarted"

Turn = dict[str, Any]


class Audit:
    """Reads all again. `readings`: of every turn there is, also of those whose id no client was told."""

    def __init__(self, client: Client, known: Known, book: Book) -> None:
        self._client, self._known, self._book = client, known, book
        self.readings: dict[str, Reading] = {}

    async def run(self) -> None:
        """Check every session that was used."""
        found = []
        for session in sorted(self._known.sessions):
            found += await self._session(session)
        self._posts(found)

    async def _session(self, session: str) -> list[Turn]:
        turns = await self._turns(session)
        for place, turn in enumerate(turns):
            await self._turn(turn, later=turns[place + 1 :])
        self._order(turns)
        if turns:
            path = f"/v1/sessions/{session}?limit=1000"
            self._messages(turns, await self._pages(path, "messages"))
        return turns

    async def _turns(self, session: str) -> list[Turn]:
        """The session's turns, oldest first."""
        include = "&".join(f"include={name}" for name in ("input", "output", "params", "metadata"))
        return (await self._pages(f"/v1/sessions/{session}/turns?limit=100&{include}", "turns"))[::-1]

    async def _pages(self, path: str, name: str) -> list[dict[str, Any]]:
        """The members of all pages of a list."""
        members: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await self._client.get(f"{path}&cursor={cursor}" if cursor else path)
            # Every post of a session may have come to nothing: then there is none.
            members += page.get(name, [])
            cursor = page.get("next_cursor")
        return members

    def _posts(self, turns: list[Turn]) -> None:
        """Each accepted post made one turn; every turn is of a post."""
        by_key: dict[str, list[str]] = {}
        for turn in turns:
            by_key.setdefault(turn["metadata"]["key"], []).append(turn["id"])
        for key, ids in by_key.items():
            self._expect(len(ids) == 1, "one post, two turns", f"{key}: {ids}")
            where = key in self._known.posted or key in self._known.unknown
            self._expect(where, "turn that nobody posted", f"{key}: {ids}")
        for key, turn_id in self._known.posted.items():
            self._expect(
                turn_id in by_key.get(key, []), "accepted turn that is not there", f"{key}: {turn_id}"
            )
        self._book.seen["turns of posts without an answer"] += len(by_key.keys() & self._known.unknown)

    async def _turn(self, turn: Turn, later: list[Turn]) -> None:
        """State, log and stream agree; a turn ends as it was asked to."""
        reading = Reading(turn["id"], turn["params"]["tokens"], self._book)
        self.readings[turn["id"]] = reading
        await self._client.read_log(reading)
        seen = self._known.readings.get(turn["id"])
        if seen and seen.status:
            self._expect(seen.digest == reading.digest, "stream and log differ", turn["id"])
        watched = self._known.watched.get(turn["id"])
        same = not watched or watched.digest == reading.digest
        self._expect(same, "session stream and log differ", turn["id"])
        told = (turn["status"], turn["attempt"])
        logged = (reading.status, reading.marks[-1].attempt)
        self._expect(told == logged, "turn and log differ", f"{turn['id']}: {told}, {logged}")
        self._book.seen[turn["status"]] += 1
        if turn["status"] == "completed":
            same = turn["output"] == reading.text
            self._expect(same, "output is not what was streamed", f"{turn['id']} {turn['output'][-40:]!r}")
        elif turn["status"] == "cancelled":
            asked = turn["id"] in self._known.cancelled
            asked = asked or any(other["metadata"]["on_busy"] == "interrupt" for other in later)
            self._expect(asked, "turn cancelled by nobody", turn["id"])
        else:
            await self._failed(turn)

    async def _failed(self, turn: Turn) -> None:
        """A turn fails where it was told to, and one that has not ended is lost."""
        if turn["status"] not in TERMINAL:
            self._book.violation("turn that does not end", f"{turn['id']}: {turn['status']}")
            return
        self._book.seen[f"failed: {turn['error']['code']}"] += 1
        code = turn["error"]["code"]
        wanted = code == "provider_error" and "fail_at" in turn["params"]
        if "deadline_seconds" in turn["metadata"]:
            # Waiting, in the first case; it had begun to run in the other.
            ran = any(mark.kind == STARTED for mark in self.readings[turn["id"]].marks)
            wanted = code == ("deadline_exceeded" if ran else "expired")
        self._expect(wanted, "turn that failed", f"{turn['id']}: {turn['error']}")

    def _order(self, turns: list[Turn]) -> None:
        """No turn started before those before it had ended."""
        ended = 0.0
        for turn in turns:
            marks = self.readings[turn["id"]].marks
            starts = [mark.at for mark in marks if mark.kind == STARTED]
            self._expect(not starts or starts[0] >= ended, "turn before its turn", turn["id"])
            ended = max(ended, marks[-1].at)

    def _messages(self, turns: list[Turn], messages: list[dict[str, Any]]) -> None:
        """The session has each answer once, in order, with the input before it."""
        expected = []
        for turn in turns:
            reading = self.readings[turn["id"]]
            if reading.status == "completed" or (reading.status == "cancelled" and reading.text):
                answer = {"role": "assistant", "content": reading.text}
                if reading.status == "cancelled":
                    answer["status"] = "incomplete"
                expected += [{"turn_id": turn["id"], **m} for m in (*turn["input"], answer)]
        detail = f"{turns[0]['session_id']}: {len(messages)} for {len(expected)}"
        self._expect(messages == expected, "messages of a session", detail)

    def _expect(self, condition: object, what: str, detail: str) -> None:
        self._book.expect(condition, what, detail)


def restarts(reading: Reading) -> list[Mark]:
    """What a turn's clients were told of attempts that came to nothing."""
    return [mark for mark in reading.marks if mark.kind == RESTARTED]
