"""The figures of a load."""

import pytest

from bench.speed.figures import Usage, figures, most_at_once, percentiles
from bench.speed.streams import Told


def turn(started: float, ended: float, *, ttft: float = 0.05, whole: bool = True) -> Told:
    """A turn of ten tokens."""
    return Told(started, 0.01, ttft, ended - started, [0.02, 0.04], tokens=10, whole=whole)


def test_turns_at_once_are_those_under_way_together() -> None:
    """One that begins as another ends is not beside it."""
    assert most_at_once([turn(0, 2), turn(1, 3), turn(2, 4), turn(10, 11)]) == 2


def test_costs_are_for_each_token_and_each_turn_at_once() -> None:
    """Three turns, two of them together: memory is divided by two, CPU by all tokens and by the time."""
    usage = Usage(cpu={"api": 3.0, "client": 0.3}, rss={"api": 2048, "client": 0}, others=1.5)
    found = figures([turn(0, 2), turn(1, 3), turn(3, 6, whole=False)], usage)
    assert (found["turns"], found["errors"], found["at_once"], found["seconds"]) == (3, 1, 2, 6)
    assert found["tokens_per_s"] == 5
    assert found["cpu_us_per_token"]["api"] == pytest.approx(100_000)
    assert found["cpu_cores"] == pytest.approx({"api": 0.5, "client": 0.05, "others": 0.25})
    assert found["rss_per_turn"]["api"] == 1024
    assert found["accepted_per_s"] == pytest.approx(3 / 3.01)


def test_the_models_own_time_is_not_counted() -> None:
    """The simulated model takes 20 ms to its first token."""
    found = figures([turn(0, 1, ttft=0.03)] * 2, Usage())
    assert found["ttft_added_ms"]["p50"] == pytest.approx(10)


def test_percentiles_are_in_ms() -> None:
    """Of one value it is that value, of none there are none."""
    found = percentiles([n / 1000 for n in range(101)])
    assert found == pytest.approx({"p50": 50, "p99": 99, "max": 100})
    assert percentiles([0.5]) == {"p50": 500, "p99": 500, "max": 500}
    assert percentiles([]) == {}
