"""From the kill of a worker to the next event of its turns, and restarts that nothing explains."""

from collections.abc import Iterable
from itertools import pairwise

from tests.chaos.audit import STARTED, restarts
from tests.chaos.book import Book, Interval
from tests.chaos.faults import ON_REDIS, Kind
from tests.chaos.reading import Mark, Reading

# Seconds before and after a kill in which nothing else may have slowed the takeover.
BEFORE, AFTER = 5.0, 6.0


def measure(readings: Iterable[Reading], book: Book) -> None:
    """Note takeover times, restarts by reason, and those that no fault explains."""
    kills = [interval for interval in book.intervals if interval.kind == "killed"]
    for reading in readings:
        for kill in kills:
            if (seconds := _taken_over(reading.marks, kill)) is not None:
                book.figure("seconds from kill to next event", seconds)
                if not _disturbed(kill, book.intervals):
                    book.figure("seconds from kill to next event, no other fault", seconds)
        for mark in restarts(reading):
            book.seen[f"restarts: {mark.reason}"] += 1
        _explained(reading, book)


def _taken_over(marks: list[Mark], kill: Interval) -> float | None:
    """Seconds until the turn's next event, if the killed process ran it."""
    for mark, following in pairwise(marks):
        ran_it = mark.kind == STARTED and mark.worker.endswith(f"-{kill.pid}")
        if ran_it and mark.at <= kill.start < following.at:
            return following.at - kill.start
    return None


def _disturbed(kill: Interval, intervals: list[Interval]) -> bool:
    return any(
        other is not kill
        and other.kind in {*ON_REDIS, "stopped", "killed"}
        and other.start < kill.end + AFTER
        and other.end > kill.start - BEFORE
        for other in intervals
    )


def _explained(reading: Reading, book: Book) -> None:
    """An attempt that had streamed loses its turn only if its worker was killed, stopped or drained."""
    worker = ""
    for mark in reading.marks:
        if mark.kind == STARTED:
            worker = mark.worker
        if mark.kind != "turn.restarted":
            continue
        rolled = [i for i in book.intervals if i.kind == Kind.ROLL and i.start <= mark.at <= i.end]
        detail = f"{reading.turn_id} attempt {mark.attempt}, {mark.reason}, from {worker}"
        book.expect(not rolled, "restart in a rolling restart", detail)
        struck = [i for i in book.intervals if worker.endswith(f"-{i.pid}") and i.start <= mark.at]
        book.expect(struck or not mark.spoken, "restart of a healthy turn", detail)
