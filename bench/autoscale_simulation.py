"""The autoscaler on large fleets, simulated: a day at 100 times the size, and the small trace at every phase.

    .venv/bin/python -m bench.autoscale_simulation [values.yaml]

Values are the chart's, but for the most replicas, which has to allow for so many. Takes some seconds.
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from bench.scaling.algorithm import Scaling
from bench.scaling.simulation import Outcome, Setup, Simulation, simulate
from bench.scaling.traces import burst, large_day
from bench.scaling.values import shipped

TIMES = 100
TURN_SECONDS = 10
SHARES = (0.7, 0.8, 0.85, 0.9)
WINDOWS = (0, 20, 35, 60, 300)


def main() -> None:
    """Print all tables."""
    scaling, slots = shipped(*map(Path, sys.argv[1:]))
    large = replace(scaling, max_replicas=scaling.max_replicas * TIMES)
    print(f"{slots} slots, {scaling}")
    print(f"\na day at {TIMES} times the size, by seconds a pod takes to start")
    table((f"{start} s", day(large, Setup(slots, start, step=1))) for start in (2, 5, 15, 30, 60))
    print("\nthe same, by target utilisation, at 5 s")
    setup = Setup(slots, 5, step=1)
    table((f"{share:.0%}", day(replace(large, target=slots * share), setup)) for share in SHARES)
    print("\nthe same, by the window of scale-in, at 5 s")
    table((f"{window} s", day(patient(large, window), setup)) for window in WINDOWS)
    trace = burst()
    print("\nfive minutes with a burst of 600, by seconds from the burst to the next sync of the HPA")
    table((f"{phase} s", simulate(trace, scaling, Setup(slots, phase=phase))) for phase in range(15))
    print("\nthe same at 7.5 s, by the window of scale-in")
    table((f"{window} s", simulate(trace, patient(scaling, window), Setup(slots))) for window in WINDOWS)
    print("\nthe same at 7.5 s, by seconds a pod takes to start")
    table((f"{start} s", simulate(trace, scaling, Setup(slots, start))) for start in (2, 5, 7, 15, 30))


def day(scaling: Scaling, setup: Setup) -> Outcome:
    """A day of the large fleet."""
    return Simulation(scaling, setup).run(large_day(TIMES, setup.step), TURN_SECONDS)


def patient(scaling: Scaling, window: float) -> Scaling:
    """With another window of scale-in."""
    return replace(scaling, down=replace(scaling.down, stabilization_seconds=window))


def table(rows: Iterable[tuple[str, Outcome]]) -> None:
    """A line for each outcome."""
    print("        worker-s / least   wait p50    p95    p99    max   turns       most workers")
    for name, outcome in rows:
        waits = "".join(f"{outcome.wait(share):7.2f}" for share in (0.5, 0.95, 0.99, 1))
        turns, most = outcome.waits.total(), outcome.most_workers
        print(f"{name:>8} {outcome.ratio:12.2f}       {waits} {turns:11,} {most:8}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
