"""The simulated pool, on cases small enough to work by hand, and the figures that the project promises."""

from dataclasses import replace

import pytest

from bench.scaling.algorithm import Policy, Rules, Scaling
from bench.scaling.simulation import Setup, Simulation, simulate
from bench.scaling.traces import Arrival, burst, day, flood, large_day, least_worker_seconds
from bench.scaling.values import read, shipped

SLOTS = 50
FIXED = Scaling(
    target=40,
    min_replicas=1,
    max_replicas=1,
    up=Rules((Policy("Pods", 100, 15),), 0),
    down=Rules((Policy("Percent", 100, 15),), 0),
)
SETUP = Setup(slots=SLOTS, start_seconds=2, step=1, phase=0)


def test_the_least_is_the_workers_that_it_takes_with_no_wait() -> None:
    """60 turns of 10 s need two workers for 10 s, one more turn at 5 s none, and one worker to 15 s."""
    arrivals = [*(Arrival(0) for _ in range(60)), Arrival(5)]
    assert least_worker_seconds(arrivals, SLOTS) == 2 * 10 + 1 * 5
    assert least_worker_seconds(arrivals, SLOTS, until=12) == 2 * 10 + 1 * 2


def test_turns_wait_for_a_slot() -> None:
    """One worker, 120 turns of 10 s: 50 at once, 50 after 10 s, 20 after 20 s."""
    outcome = Simulation(FIXED, SETUP).run([120] + [0] * 40, 10)
    assert outcome.waits == {0: 50, 10: 50, 20: 20}
    assert outcome.wait(0.4) == 0
    assert outcome.wait(0.5) == 10
    assert outcome.wait(1) == 20


def test_new_workers_help_once_they_have_started() -> None:
    """The sync at 0 sees 120 turns and wants three workers; they are there after 2 s."""
    outcome = Simulation(replace(FIXED, max_replicas=9), SETUP).run([120] + [0] * 10, 10)
    assert outcome.waits == {0: 50, 2: 70}
    assert outcome.most_workers == 3


def test_workers_stay_while_their_turns_run() -> None:
    """Three workers of 120 turns: the first sync that finds no turn is the one at 30 s."""
    outcome = Simulation(replace(FIXED, min_replicas=1, max_replicas=3), SETUP).run([120] + [0] * 29, 20)
    # All turns run by 2 s and have ended by 22 s; the sync at 15 s sees 120 of them.
    assert outcome.worker_seconds == 3 * 30
    assert outcome.waits.total() == 120


def test_draining_workers_count_until_they_are_gone() -> None:
    """Three workers, 30 turns at 28 s: the sync at 30 s stops two, whose turns end at 48 s."""
    outcome = Simulation(replace(FIXED, max_replicas=3), SETUP).run([120] + [0] * 27 + [30] + [0] * 31, 20)
    assert outcome.waits.total() == 150
    assert outcome.worker_seconds == 3 * 48 + 1 * 12


@pytest.mark.parametrize("trace", [burst, day, flood])
def test_traces_are_the_same_at_each_call(trace: object) -> None:
    """A figure can be measured again."""
    assert callable(trace)
    assert trace() == trace()


def test_the_burst_is_what_was_promised() -> None:
    """600 turns of 10 s at one moment."""
    assert sum(arrival == Arrival(30) for arrival in burst().arrivals) == 600


def test_shipped_values_hold_the_bar_under_a_burst() -> None:
    """At most a sync in the middle: p95 under 15 s, worker-seconds within twice the least."""
    scaling, slots = shipped()
    for phase in (0, 7.5, 12):
        outcome = simulate(burst(), scaling, Setup(slots, phase=phase))
        assert outcome.wait(0.95) < 15
        assert outcome.ratio < 2


@pytest.mark.slow
def test_shipped_values_hold_the_bar_in_a_large_fleet() -> None:
    """A day at 100 times the size: p95 under 15 s, worker-seconds within 1.3 times the least."""
    scaling, slots = shipped()
    setup = Setup(slots, start_seconds=5, step=1)
    outcome = Simulation(replace(scaling, max_replicas=2000), setup).run(large_day(100, 1), 10)
    assert outcome.wait(0.95) < 15
    assert outcome.ratio < 1.3


def test_what_the_chart_leaves_out_is_as_in_kubernetes() -> None:
    """A section without behaviour gets the HPA's defaults."""
    section = {"targetUtilization": 0.8, "minReplicas": 0, "maxReplicas": 9}
    keda = {"pollingInterval": 30, "cooldownPeriod": 300}
    assert read(section, keda, SLOTS) == Scaling(target=40, min_replicas=0, max_replicas=9)
