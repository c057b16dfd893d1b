"""A pool under the autoscaler, without processes: as fast for a thousand workers as for ten.

Turns are counted, not followed one by one. Of the pool it knows that a worker takes time to start, has so
many slots, runs the turns it has to their end when it is stopped, and that the line is first in, first out.
What it takes for granted is that turns are spread evenly over workers: then none is idle at scale-in, and
each lives on for about a turn's length. Real ones are stopped idle first, so worker-seconds are rather too
many than too few.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.scaling.algorithm import Autoscaler, Scaling
from bench.scaling.traces import Trace


@dataclass(frozen=True, slots=True)
class Setup:
    """A pool: slots of a worker, seconds it takes to start, seconds of a step of the simulation."""

    slots: int = 50
    start_seconds: float = 2.0
    step: float = 0.25
    phase: float = 7.5


@dataclass(slots=True)
class Outcome:
    """What came of it. `waits`: turns by the seconds they waited, rounded up to steps."""

    worker_seconds: float = 0.0
    least: float = 0.0
    most_workers: int = 0
    waits: Counter[float] = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        """Worker-seconds by the least possible."""
        return self.worker_seconds / self.least if self.least else math.inf

    def wait(self, share: float) -> float:
        """The wait that so great a share of the turns did not exceed."""
        left = share * self.waits.total()
        for seconds in sorted(self.waits):
            left -= self.waits[seconds]
            if left <= 1e-9:  # noqa: PLR2004 - rounding
                return seconds
        return 0.0


@dataclass(slots=True)
class Group:
    """Workers that are alike. `ends`: turns by the step at which they end."""

    workers: int = 0
    ends: Counter[int] = field(default_factory=Counter)
    running: int = 0

    def end(self, step: int) -> None:
        """Let turns end."""
        self.running -= self.ends.pop(step, 0)

    def split(self, workers: int) -> "Group":
        """Take workers out, with their share of the turns."""
        share = workers / self.workers
        taken = Counter({step: math.floor(count * share) for step, count in self.ends.items()})
        group = Group(workers, taken, taken.total())
        self.ends -= taken
        self.workers -= workers
        self.running -= group.running
        return group


class Simulation:
    """One run; `step` after `step`."""

    def __init__(self, scaling: Scaling, setup: Setup) -> None:
        self.setup = setup
        self.outcome = Outcome()
        self._scaler = Autoscaler(scaling, setup.phase)
        self._live = Group(scaling.min_replicas)
        self._starting: deque[tuple[int, int]] = deque()
        self._draining: list[Group] = []
        self._line: deque[list[int]] = deque()
        self._queued = 0
        self._offered = 0
        self._offered_ends: Counter[int] = Counter()

    def run(self, counts: Iterable[int], turn_seconds: float) -> Outcome:
        """Feed so many turns at each step, each to run for `turn_seconds`."""
        length = round(turn_seconds / self.setup.step)
        for step, count in enumerate(counts):
            self._step(step, count, length)
        return self.outcome

    def _step(self, step: int, count: int, length: int) -> None:
        self._end(step)
        self._offered += count - self._offered_ends.pop(step, 0)
        self._offered_ends[step + length] += count
        if count:
            self._line.append([step, count])
            self._queued += count
        self._start(step, length)
        self._scale(step)
        here = self._live.workers + self._coming + sum(group.workers for group in self._draining)
        outcome, seconds = self.outcome, self.setup.step
        outcome.worker_seconds += here * seconds
        outcome.least += math.ceil(self._offered / self.setup.slots) * seconds
        outcome.most_workers = max(outcome.most_workers, here)

    def _end(self, step: int) -> None:
        for group in (self._live, *self._draining):
            group.end(step)
        self._draining = [group for group in self._draining if group.running]
        while self._starting and self._starting[0][0] <= step:
            self._live.workers += self._starting.popleft()[1]

    def _start(self, step: int, length: int) -> None:
        live = self._live
        free = live.workers * self.setup.slots - live.running
        while self._line and free > 0:
            came, count = self._line[0]
            taken = min(count, free)
            free -= taken
            self._queued -= taken
            live.running += taken
            live.ends[step + length] += taken
            self.outcome.waits[(step - came) * self.setup.step] += taken
            if taken == count:
                self._line.popleft()
            else:
                self._line[0][1] -= taken

    @property
    def _coming(self) -> int:
        return sum(workers for _, workers in self._starting)

    def _scale(self, step: int) -> None:
        running = self._live.running + sum(group.running for group in self._draining)
        replicas = self._live.workers + self._coming
        desired = self._scaler.look(step * self.setup.step, self._queued + running, replicas)
        if desired > replicas:
            ready = step + round(self.setup.start_seconds / self.setup.step)
            self._starting.append((ready, desired - replicas))
        elif desired < replicas:
            self._stop(replicas - desired)

    def _stop(self, workers: int) -> None:
        """Those that have not started yet first."""
        while self._starting and workers:
            ready, coming = self._starting.pop()
            kept = max(coming - workers, 0)
            workers -= coming - kept
            if kept:
                self._starting.append((ready, kept))
        if workers:
            self._draining.append(self._live.split(workers))


def binned(trace: Trace, step: float) -> list[int]:
    """How many turns of a trace come at each step."""
    counts = [0] * round(trace.seconds / step)
    for arrival in trace.arrivals:
        counts[int(arrival.at / step)] += 1
    return counts


def simulate(trace: Trace, scaling: Scaling, setup: Setup) -> Outcome:
    """Run a trace, and on until its last turn has ended; all its turns are taken to be of one length."""
    (turn_seconds,) = {arrival.seconds for arrival in trace.arrivals}
    return Simulation(scaling, setup).run(binned(trace, setup.step), turn_seconds)
