"""A minute of chaos."""

from itertools import islice

import pytest

from tests.acceptance.sse import words
from tests.chaos.book import Book, Interval
from tests.chaos.faults import DECK, Kind, schedule
from tests.chaos.plans import moves
from tests.chaos.pool import STOPPED
from tests.chaos.reading import Reading
from tests.chaos.report import table
from tests.chaos.run import run
from tests.chaos.times import held_up

# One that every run repeats, so that a failure is the code's. `make chaos` takes others.
SEED, SECONDS = 1, 60


@pytest.mark.acceptance
@pytest.mark.anyio
@pytest.mark.timeout(400)
async def test_a_minute_of_chaos() -> None:
    """Every kind of fault under a steady load: no promise is broken."""
    found = await run(SEED, SECONDS)
    assert not found["broken"], f"\n{table(found)}\nAgain: make chaos SEED={SEED} SECONDS={SECONDS}"
    assert found["seen"]["completed"] > 50


def test_a_seed_fixes_faults_and_load() -> None:
    """The same seed gives the same, another seed another; a minute has every kind of fault."""
    assert schedule(1, 60) == schedule(1, 60) != schedule(2, 60)
    assert list(islice(moves(1, 0), 20)) == list(islice(moves(1, 0), 20)) != list(islice(moves(2, 0), 20))
    assert {fault.kind for fault in schedule(SEED, SECONDS)} == {*DECK, Kind.ROLL}


def test_faults_end_before_the_calm() -> None:
    """Nothing is injected, and nothing lasts, into a rolling restart."""
    for seed in range(100):
        faults = schedule(seed, 900)
        for roll in (fault for fault in faults if fault.kind is Kind.ROLL):
            before = [fault for fault in faults if fault.at < roll.at and fault.kind is not Kind.ROLL]
            assert all(fault.at < roll.at - 5 for fault in before)


EVENTS: list[tuple[str, int, dict[str, object]]] = [
    ("turn.queued", 0, {}),
    ("turn.in_progress", 1, {"worker": "w-1"}),
    ("turn.output_text.delta", 1, {"text": "w0 "}),
    ("turn.restarted", 2, {"reason": "drained", "keep": 0}),
    ("turn.in_progress", 2, {"worker": "w-2"}),
    ("turn.output_text.delta", 2, {"text": words(2)}),
    ("turn.completed", 2, {"output": words(2)}),
]


def read(events: list[tuple[str, int, dict[str, object]]], ids: list[int]) -> dict[str, int]:
    """What is found wrong with a stream."""
    book = Book()
    reading = Reading("s.1", 2, book)
    for number, (kind, attempt, fields) in zip(ids, events, strict=True):
        data = {
            "type": kind,
            "turn_id": "s.1",
            "seq": number,
            "attempt": attempt,
            "created_at": 1.0,
            **fields,
        }
        reading.take(number, kind, data)
    return dict(book.broken)


def test_a_stream_that_keeps_its_promises() -> None:
    """Nothing is found wrong with it."""
    assert read(EVENTS, [1, 2, 3, 4, 5, 6, 7]) == {}


@pytest.mark.parametrize(
    ("events", "ids", "found"),
    [
        (EVENTS, [1, 2, 3, 4, 5, 7, 8], "hole in a stream"),
        (EVENTS, [1, 2, 3, 4, 5, 5, 6], "doubled event"),
        ([*EVENTS, EVENTS[-1]], [1, 2, 3, 4, 5, 6, 7, 8], "event after the end"),
        ([*EVENTS[:3], *EVENTS[4:]], [1, 2, 3, 4, 5, 6], "wrong text"),
        ([*EVENTS[:5], EVENTS[2], *EVENTS[5:]], [1, 2, 3, 4, 5, 6, 7, 8], "write of a stale attempt"),
        ([*EVENTS[:5], EVENTS[-1]], [1, 2, 3, 4, 5, 6], "output is not what was streamed"),
        ([*EVENTS[:3], ("turn.restarted", 2, {"reason": "drained", "keep": 4})], [1, 2, 3, 4], "keep beyond"),
    ],
)
def test_a_stream_that_breaks_them(
    events: list[tuple[str, int, dict[str, object]]], ids: list[int], found: str
) -> None:
    """It is found out, each by its name."""
    assert any(name.startswith(found) for name in read(events, ids))


@pytest.mark.parametrize(("came", "seconds"), [(7, 2), (11, 5), (15, 1), (22, 8), (30, 10), (41, 1)])
def test_a_wait_is_counted_without_its_faults(came: float, seconds: float) -> None:
    """From the end of the last fault, or to the start of those that it came in the midst of."""
    book = Book()
    faults = ((Kind.SLOW, 10, 14), (STOPPED, 24, 28), (Kind.KILL_REDIS, 27, 40))
    book.intervals = [Interval(*fault) for fault in faults]
    assert held_up(5, came, book) == seconds
