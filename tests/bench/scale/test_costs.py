"""What things cost, from the figures of loads."""

from typing import Any

import pytest

from bench.scale.costs import ROLES, SERVERS, Cost, Costs, Lone, Run, costs, fit, least_squares
from bench.speed.loads import LOADS
from bench.speed.submits import SUBMITS

TURN, SECOND, EVENT, TOKEN, FLUSH = 1e-3, 2e-2, 5e-5, 1e-5, 2e-4
LONE = Lone(TURN, SECOND)


def run(load: str, turns: float, events: float, seconds: float, *, factor: float = 1.0) -> Run:
    """A run of turns of 100 tokens that cost just what they should, times the factor."""
    tokens = 100 * turns
    cpu = turns * TURN + seconds * SECOND + events * EVENT + tokens * TOKEN + seconds / 0.025 * FLUSH
    cpu *= factor
    return Run(load, turns, events, tokens, seconds, dict.fromkeys(ROLES, cpu), turns, 0.025)


def test_costs_are_told_apart() -> None:
    """What was put together comes out, and nothing is below zero."""
    rows = [(1.0, 20.0, 3.0), (2.0, 5.0, 1.0), (7.0, 1.0, 0.0), (3.0, 3.0, 9.0)]
    known = (0.5, 0.25, 4.0)
    values = [sum(a * b for a, b in zip(row, known, strict=True)) for row in rows]
    assert least_squares(rows, values) == pytest.approx(known)
    assert min(least_squares(rows, [row[0] - 0.1 * row[1] for row in rows])) == 0


def test_costs_that_always_come_together_are_one() -> None:
    """They cannot be told apart; their sum can."""
    found = least_squares([(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)], [5.0, 10.0, 15.0])
    assert min(found) == 0
    assert found[0] + 2 * found[1] == pytest.approx(5)


def test_turns_out_of_step_cost_more() -> None:
    """By as much as they took more than was fitted; a load that took less makes nothing cheaper."""
    steady = [run("10 at once", 10, 800, 2), run("idle", 40, 300, 8), run("1000 at once", 1000, 3000, 4)]
    steady += [run("300 at once", 300, 9000, 3)] * 100
    dear, cheap = (run("50 a second", 300, 9000, 3, factor=factor) for factor in (1.5, 0.5))
    assert fit([*steady, dear], "api", LONE).looseness == pytest.approx(1.5, rel=0.02)
    assert fit([*steady, cheap], "api", LONE).looseness == 1
    assert Cost(TURN, SECOND, EVENT, TOKEN, FLUSH, looseness=2).cores(10, 100, 1000) == pytest.approx(0.05)


def test_what_is_too_short_to_count_is_left_out() -> None:
    """A run of some hundredths of a second, which is what the system counts in."""
    some = [run("10 at once", 10, 800, 2), run("idle", 40, 300, 8), run("1000 at once", 1000, 3000, 4)]
    assert fit([*some, run("1 at once", 1, 80, 0.5, factor=3)], "api", LONE) == fit(some, "api", LONE)


def test_pauses_between_events_are_those_measured() -> None:
    """Between two numbers of turns by the logarithm; beyond the ends as at the ends."""
    some = Costs({}, [(10, 0.02), (1000, 0.1)], {}, 0)
    assert [some.interval(turns) for turns in (1, 10, 100, 1000, 5000)] == pytest.approx(
        [0.02, 0.02, 0.06, 0.1, 0.1]
    )


def figures(load: str, number: int, processes: int) -> dict[str, Any]:
    """A run as bench.speed writes it, at a known price: turns of some tokens, two or four tokens an event."""
    tokens = (100 if "at once" in load else 50) * 10
    seconds = 2.0 + number
    itl = 0.1 if "10 tok/s" in load else 0.02
    share = 2 + number % 3
    flushes = seconds * processes / (itl * share)
    cpu = 10 * TURN + seconds * processes * SECOND + tokens / share * EVENT + tokens * TOKEN + flushes * FLUSH
    return {
        "turns": 10,
        "seconds": seconds,
        "at_once": 100 * processes,
        "gap_ms": {"p50": 1000 * itl * share},
        "tokens_per_s": tokens / seconds,
        "cpu_us_per_token": dict.fromkeys(ROLES, cpu / tokens * 1e6),
        "rss_per_turn": dict.fromkeys(ROLES, 2048.0),
    }


def test_costs_come_out_of_the_figures_of_speed() -> None:
    """Events by the pause between them, seconds and flushes of every process."""
    found: dict[str, dict[str, list[Any]]] = {
        load: {server: [figures(load, number, processes)] * 3 for server, processes in SERVERS.items()}
        for number, load in enumerate(LOADS)
    }
    found[SUBMITS] = {"turnpool 1+1": [{"accepted_per_s": 300.0}, {"accepted_per_s": 500.0}]}
    known = costs(found, dict.fromkeys(ROLES, LONE))
    for role in ROLES:
        cost = known.of[role]
        found_costs = (cost.turn, cost.second, cost.event, cost.token, cost.flush)
        assert found_costs == pytest.approx((TURN, SECOND, EVENT, TOKEN, FLUSH))
        assert cost.error == pytest.approx(0, abs=1e-9)
    assert known.accepted == 400
    assert known.rss == dict.fromkeys(ROLES, 2048)
    # All have as many at once on a worker; the mean of their pauses.
    assert [turns for turns, _ in known.intervals] == [100]
    assert 0.04 <= known.interval(100) <= 0.08
