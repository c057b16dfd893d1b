"""Figures of a run."""

import math

from bench.scaling.clients import Seen
from bench.scaling.report import figures, percentiles


def test_a_percentile_is_a_value_that_was_there() -> None:
    """The least value that so many do not exceed; what was not measured does not count."""
    assert percentiles([*range(1, 101), math.nan]) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert percentiles([math.nan]) == {}


def test_a_turn_with_a_hole_in_its_text_is_lost() -> None:
    """As one that did not complete; a restart is counted apart."""
    turns = [
        Seen(0, "default", "completed", 0, 0.1, 0.2, whole=True),
        Seen(0, "default", "completed", 1, 0.1, 0.2, whole=True),
        Seen(0, "default", "completed", 0, 0.1, 0.2, whole=False),
        Seen(0, "default", "failed", 0, 0.1, math.nan, whole=False),
    ]
    found = figures(turns)
    assert (found["turns"], found["lost"], found["restarted"]) == (4, 2, 1)
