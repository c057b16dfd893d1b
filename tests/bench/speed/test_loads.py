"""What is asked of a server."""

import random
import statistics

from bench.speed.loads import ANSWER, LOADS, LONGEST_ANSWER, THINKING, TURNS, arrivals, shape
from bench.speed.streams import LONGEST, Told
from bench.speed.submits import told_by


def test_conversations_have_the_documented_shape() -> None:
    """Medians as they say, a tail of long answers, and the same each time."""
    shapes, again = ([shape(random.Random(n)) for n in range(2000)] for _ in range(2))  # noqa: S311 - same each time
    assert shapes == again
    turns = [turn for each in shapes for turn in each]
    tokens, pauses = ([turn[column] for turn in turns] for column in (0, 1))
    assert 0.95 < statistics.median(tokens) / ANSWER[0] < 1.05
    assert 0.95 < statistics.median(pauses) / THINKING[0] < 1.05
    assert statistics.median(map(len, shapes)) == TURNS[0]
    assert min(tokens) >= 1
    assert max(tokens) == LONGEST_ANSWER


def test_loads_grow() -> None:
    """Memory of a large load is not counted for a smaller one after it."""
    sessions = [int(name.split()[0]) for name in LOADS if "at once" in name or "within" in name]
    assert sessions == sorted(sessions)


def test_arrivals_are_spread_over_the_time() -> None:
    """All of them come within it, in order and at the same times in each run, as many in each part of it."""
    times = arrivals(2000, 4)
    assert times == arrivals(2000, 4) == sorted(times)
    assert all(430 < sum(second <= time < second + 1 for time in times) < 570 for second in range(4))


def test_a_submitted_turn_is_told_by_its_log() -> None:
    """Its first text counts, on the client's clock; a text with a hole is not whole."""
    posted = Told(100.0, 0.01, LONGEST, 0.01, [], 0, whole=False)
    events = [
        {"type": "turn.queued", "created_at": 1100.1},
        {"type": "turn.output_text.delta", "created_at": 1100.25, "text": "w0 "},
        {
            "type": "turn.output_text.delta",
            "created_at": 1100.5,
            "text": "".join(f"w{k} " for k in range(1, 100)),
        },
    ]
    told = told_by(posted, events, 1000.0)
    assert (round(told.ttft, 3), told.whole) == (0.25, True)
    assert not told_by(posted, events[:2], 1000.0).whole
    assert told_by(posted, [], 1000.0).ttft == LONGEST
