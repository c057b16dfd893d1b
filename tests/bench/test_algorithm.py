"""KEDA's and the HPA's algorithm on examples worked by hand."""

from dataclasses import replace

import pytest

from bench.scaling.algorithm import Autoscaler, Hpa, Keda, Policy, Rules, Scaling, wanted

FREE = Rules((Policy("Percent", 100_000, 15),), 0)
DOWN = Rules((Policy("Percent", 100, 15),), 0)
SCALING = Scaling(target=40, min_replicas=1, max_replicas=1000, up=FREE, down=DOWN)


@pytest.mark.parametrize(
    ("total", "replicas", "expected"),
    [
        (0, 3, 0),
        (41, 2, 2),  # 41 / 80: far below, 2 wanted
        (39, 2, 1),
        (600, 2, 15),
        (601, 2, 16),
        (440, 10, 10),  # 1.1 times the target: within the tolerance
        (441, 10, 12),
        (360, 10, 10),  # 0.9 times
        (359, 10, 9),
    ],
)
def test_replicas_are_the_total_by_the_target_unless_within_a_tenth(
    total: float, replicas: int, expected: int
) -> None:
    """The worked table of an AverageValue metric."""
    assert wanted(total, 40, replicas) == expected


def test_least_and_most_replicas_hold() -> None:
    """The HPA stays between minReplicas and maxReplicas."""
    scaling = replace(SCALING, min_replicas=2, max_replicas=5)
    assert Hpa(scaling).sync(0, 0, 4) == 2
    assert Hpa(scaling).sync(0, 4000, 4) == 5
    assert Hpa(scaling).sync(0, 4000, 1) == 2
    assert Hpa(scaling).sync(0, 0, 9) == 5


def test_scale_in_waits_for_its_window() -> None:
    """The most that was recommended in the window counts."""
    hpa = Hpa(replace(SCALING, down=replace(DOWN, stabilization_seconds=20)))
    assert hpa.sync(0, 400, 1) == 10
    assert hpa.sync(15, 80, 10) == 10
    assert hpa.sync(30, 120, 10) == 3
    assert hpa.sync(45, 120, 3) == 3


def test_a_recommendation_as_old_as_the_window_is_out() -> None:
    """A window of one sync period holds back nothing."""
    hpa = Hpa(replace(SCALING, down=replace(DOWN, stabilization_seconds=15)))
    assert hpa.sync(0, 400, 1) == 10
    assert hpa.sync(15, 80, 10) == 2


def test_scale_out_waits_for_its_window() -> None:
    """The least that was recommended in the window counts, so a spike is passed over."""
    hpa = Hpa(replace(SCALING, up=replace(FREE, stabilization_seconds=20)))
    assert hpa.sync(0, 40, 1) == 1
    assert hpa.sync(15, 400, 1) == 1
    assert hpa.sync(30, 200, 1) == 5


@pytest.mark.parametrize(("select", "expected"), [("Max", 20), ("Min", 14), ("Disabled", 10)])
def test_the_policies_of_scale_out(select: str, expected: int) -> None:
    """4 pods or 100 %: of 10 replicas the larger is 20, the smaller 14."""
    rules = Rules((Policy("Pods", 4, 15), Policy("Percent", 100, 15)), 0, select)  # type: ignore[arg-type]
    assert Hpa(replace(SCALING, up=rules)).sync(0, 4000, 10) == expected


@pytest.mark.parametrize(("select", "expected"), [("Max", 5), ("Min", 6), ("Disabled", 10)])
def test_the_policies_of_scale_in(select: str, expected: int) -> None:
    """4 pods or 50 %: of 10 replicas Max takes 5 away, Min 4."""
    rules = Rules((Policy("Pods", 4, 15), Policy("Percent", 50, 15)), 0, select)  # type: ignore[arg-type]
    assert Hpa(replace(SCALING, down=rules)).sync(0, 0, 10) == expected


def test_what_was_added_in_the_period_counts() -> None:
    """4 pods a minute: the second sync adds none, the one after the minute does."""
    hpa = Hpa(replace(SCALING, up=Rules((Policy("Pods", 4, 60),), 0)))
    assert hpa.sync(0, 4000, 1) == 5
    assert hpa.sync(15, 4000, 5) == 5
    assert hpa.sync(60, 4000, 5) == 9


def test_a_percentage_is_of_the_replicas_at_the_start_of_the_period() -> None:
    """100 % a minute of 3 is 6, also after they were added in two steps."""
    hpa = Hpa(replace(SCALING, up=Rules((Policy("Percent", 100, 60),), 0)))
    assert hpa.sync(0, 200, 3) == 5
    assert hpa.sync(15, 4000, 5) == 6
    assert hpa.sync(30, 4000, 6) == 6


def test_keda_takes_the_step_from_zero_at_its_poll() -> None:
    """The HPA does nothing at zero; KEDA starts the least number, one if that is zero."""
    zero = replace(SCALING, min_replicas=0)
    assert Hpa(zero).sync(0, 600, 0) == 0
    assert Keda(zero).poll(0, 600, 0) == 1
    assert Keda(replace(SCALING, min_replicas=3)).poll(0, 600, 0) == 3


def test_keda_goes_to_zero_after_the_cooldown() -> None:
    """Only when nothing waited or ran for so long, and only if the least number is zero."""
    keda = Keda(replace(SCALING, min_replicas=0, cooldown_seconds=60))
    assert keda.poll(0, 5, 1) == 1
    assert keda.poll(45, 0, 1) == 1
    assert keda.poll(60, 0, 1) == 0
    kept = Keda(SCALING)
    assert kept.poll(1000, 0, 1) == 1


def test_nothing_changes_between_syncs() -> None:
    """The first sync is at the phase, the next 15 s later."""
    scaler = Autoscaler(SCALING, phase=7.5)
    assert [scaler.look(now, 400, 1) for now in (0, 7, 7.5)] == [1, 1, 10]
    assert [scaler.look(now, 800, 10) for now in (8, 22, 22.5)] == [10, 10, 20]
