"""Times of all turns: takeovers, waits, late events; and restarts that nothing explains."""

from collections.abc import Mapping
from itertools import pairwise

from tests.chaos.audit import RESTARTED, STARTED, restarts
from tests.chaos.book import LATE, Book, Interval
from tests.chaos.faults import ON_REDIS, Kind
from tests.chaos.pool import KILLED, STOPPED, TOLD_IN_HASTE
from tests.chaos.reading import Mark, Reading

# Seconds that a turn which is ready waits at most: at times half of the pool restarts.
MAX_WAIT = 10.0
# Seconds that a worker can stand still without a loss: a lease less the time since its renewal.
PAUSE = 2.0
# What may have befallen the worker of a turn that is restarted, by the reason that is told.
CAUSES = {"worker_lost": {KILLED, STOPPED, TOLD_IN_HASTE}, "drained": {TOLD_IN_HASTE}}


def measure(readings: Mapping[str, Reading], book: Book) -> None:
    """Note takeover times, restarts by reason, late events, and what no fault explains."""
    _node_timed_out(book)
    _waits(readings, book)
    kills = [interval for interval in book.intervals if interval.kind == KILLED]
    for reading in readings.values():
        for kill in kills:
            if (seconds := _taken_over(reading.marks, kill)) is not None:
                book.figure("seconds from kill to next event", seconds)
                aside = held_up(kill.start, kill.start + seconds, book)
                book.figure("seconds from kill to next event, faults of Redis aside", aside)
        for mark in restarts(reading):
            book.seen[f"restarts: {mark.reason}"] += 1
        _explained(reading, book)


def _node_timed_out(book: Book) -> None:
    """An event comes soon after the last fault that held it up."""
    for event in book.late:
        seconds = held_up(event.due, event.came, book)
        book.figure("seconds that an event came late", seconds)
        book.expect(seconds < LATE, "event that came late", f"{event.turn_id}: {seconds:.1f} s")


def _waits(readings: Mapping[str, Reading], book: Book) -> None:
    """A turn starts soon after it could, faults aside: no lost wake-up keeps it."""
    ended: dict[str, float] = {}
    for turn_id in sorted(readings, key=lambda turn_id: int(turn_id.rpartition(".")[2])):
        marks, session = readings[turn_id].marks, turn_id.rpartition(".")[0]
        starts = [mark.at for mark in marks if mark.kind == STARTED]
        if starts:
            due = max(marks[0].at, ended.get(session, 0.0))
            seconds = held_up(due, starts[0], book)
            book.figure("seconds from ready to started, faults aside", seconds)
            book.expect(seconds < MAX_WAIT, "turn that nobody took", f"{turn_id}: {seconds:.1f} s")
        ended[session] = max(ended.get(session, 0.0), marks[-1].at)


def held_up(due: float, came: float, book: Book) -> float:
    """Seconds from the last fault that held it up, or to the one that it came in the midst of."""
    faults = [i for i in book.intervals if i.kind in {*ON_REDIS, STOPPED}]
    while around := [i.start for i in faults if i.start < came <= i.end]:
        came = min(around)
    return max(0.0, came - max([due, *(i.end for i in faults if due < i.end < came)]))


def _taken_over(marks: list[Mark], kill: Interval) -> float | None:
    """Seconds until the turn's next event, if the killed process ran it."""
    for mark, following in pairwise(marks):
        ran_it = mark.kind == STARTED and mark.worker.endswith(f"-{kill.pid}")
        if ran_it and mark.at <= kill.start < following.at:
            return following.at - kill.start
    return None


def _explained(reading: Reading, book: Book) -> None:
    """A turn is restarted only for what befell its worker."""
    worker = ""
    for mark in reading.marks:
        if mark.kind == STARTED:
            worker = mark.worker
        if mark.kind != RESTARTED:
            continue
        rolled = [i for i in book.intervals if i.kind == Kind.ROLL and i.start <= mark.at <= i.end]
        detail = f"{reading.turn_id} attempt {mark.attempt}, {mark.reason}, from {worker}"
        book.expect(not rolled, "restart in a rolling restart", detail)
        struck = {i.kind for i in book.intervals if _befell(i, worker, mark)}
        book.expect(struck & CAUSES[mark.reason], "restart of a healthy turn", detail)


def _befell(interval: Interval, worker: str, mark: Mark) -> bool:
    """Whether it befell the worker before, and is no pause too short to lose a lease by."""
    long = interval.kind != STOPPED or interval.end - interval.start > PAUSE
    return long and worker.endswith(f"-{interval.pid}") and interval.start <= mark.at
