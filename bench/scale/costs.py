"""What a turn, an event and a token cost each process: fitted to the figures of bench/results/speed.json.

CPU of a run = turns x turn + seconds x second + events x event + tokens x token + flushes x flush. The first
two are measured (`lone.py`), the others are the least squares of the relative error, none below zero.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.speed.loads import LOADS, PARAMS
from bench.speed.report import FEWEST_FOR_MEMORY, Runs
from bench.speed.submits import SUBMITS
from turnpool_workers.attempt.writer import MAX_INTERVAL

SERVERS = {"turnpool 1+1": 1, "turnpool 2+2": 2}
"""Processes of each kind."""
ROLES = ("api", "worker", "valkey")
# Turns that do not go in step, as those of users do not, on processes that have time to spare, as pods have.
LOOSE = ("50 a second", "conversations")
# CPU seconds of a run that says something: the system counts in hundredths.
LEAST_CPU = 0.1
ALIKE = 1e-9

Vector = Sequence[float]


@dataclass(frozen=True)
class Run:
    """Medians of a load on a server; CPU in seconds."""

    load: str
    turns: float
    events: float
    tokens: float
    seconds: float
    """Of all processes of a kind."""
    cpu: dict[str, float]
    at_once: float
    """Of one worker."""
    gap: float

    @property
    def terms(self) -> Vector:
        """What the fitted costs are multiplied by; the worker flushes once in the time between two events."""
        return (self.events, self.tokens, self.seconds / self.gap)


@dataclass(frozen=True)
class Lone:
    """CPU seconds of a turn of one token, and of a second in which nothing happens."""

    turn: float
    second: float


@dataclass(frozen=True)
class Cost:
    """CPU seconds of one process. `looseness`: of turns that do not go in step, by what was fitted."""

    turn: float
    second: float
    event: float
    token: float
    flush: float
    looseness: float = 1.0
    error: float = 0.0
    """Root mean square of the fit's relative error."""

    def cores(self, turns: float, events: float, tokens: float) -> float:
        """Of so many a second, without what each process costs."""
        return self.looseness * (turns * self.turn + events * self.event + tokens * self.token)

    def process(self, interval: float) -> float:
        """Of a process with so many seconds between two flushes."""
        return self.second + self.flush / interval


@dataclass(frozen=True)
class Costs:
    """All that is known from the figures of speed."""

    of: dict[str, Cost]
    intervals: list[tuple[float, float]]
    """Turns that stream from one worker, and seconds between two events of each."""
    rss: dict[str, float]
    """Bytes of a process for each turn under way."""
    accepted: float
    """Turns that one API accepts a second when all come at one moment."""

    def interval(self, turns: float) -> float:
        """Seconds between two events of a turn, with so many turns on its worker."""
        (low, at_low), *rest = self.intervals
        if turns <= low:
            return at_low
        for high, at_high in rest:
            if turns <= high:
                return at_low + (at_high - at_low) * math.log(turns / low) / math.log(high / low)
            low, at_low = high, at_high
        return at_low


def costs(found: Runs, lone: dict[str, Lone]) -> Costs:
    """From the runs by load and server, and what was measured by role."""
    runs = [_run(load, server, found[load][server]) for load in LOADS for server in SERVERS]
    submitted = [run["accepted_per_s"] for run in found[SUBMITS]["turnpool 1+1"]]
    return Costs(
        of={role: fit(runs, role, lone[role]) for role in ROLES},
        intervals=_intervals(runs),
        rss={
            role: statistics.median(
                run["rss_per_turn"][role]
                for server in SERVERS
                for load in LOADS
                for run in found[load][server]
                # In conversations memory stays of turns that have ended.
                if run["at_once"] >= FEWEST_FOR_MEMORY and load != "conversations"
            )
            for role in ROLES
        },
        accepted=statistics.median(submitted),
    )


def fit(runs: Sequence[Run], role: str, lone: Lone) -> Cost:
    """The cost of a role."""
    runs = [run for run in runs if run.cpu[role] >= LEAST_CPU]
    rows = [[term / run.cpu[role] for term in run.terms] for run in runs]
    known = [(run.turns * lone.turn + run.seconds * lone.second) / run.cpu[role] for run in runs]
    found = least_squares(rows, [1 - share for share in known])
    fitted = [
        share + sum(a * b for a, b in zip(found, row, strict=True))
        for share, row in zip(known, rows, strict=True)
    ]
    loose = [1 / share for share, run in zip(fitted, runs, strict=True) if run.load in LOOSE]
    event, token, flush = found
    return Cost(
        lone.turn,
        lone.second,
        event,
        token,
        flush,
        looseness=max(statistics.mean(loose), 1.0) if loose else 1.0,
        error=math.sqrt(statistics.mean((share - 1) ** 2 for share in fitted)),
    )


def least_squares(rows: Sequence[Vector], values: Vector) -> list[float]:
    """The x, none below zero, with the least squares of rows x - values.

    Tries every choice of which are zero: exact, and three unknowns have seven.
    """
    width = len(rows[0])
    best, least = [0.0] * width, math.inf
    for count in range(1, width + 1):
        for some in itertools.combinations(range(width), count):
            found = _solve([[row[i] for i in some] for row in rows], values)
            if found is None or min(found) < 0:
                continue
            x = [0.0] * width
            for i, value in zip(some, found, strict=True):
                x[i] = value
            error = sum(
                (sum(a * b for a, b in zip(row, x, strict=True)) - value) ** 2
                for row, value in zip(rows, values, strict=True)
            )
            if error < least:
                best, least = x, error
    return best


def _solve(rows: Sequence[Vector], values: Vector) -> list[float] | None:
    """The normal equations by elimination; None where they do not tell the unknowns apart."""
    width = len(rows[0])
    # Columns of about the same size, so that what is nearly zero is known.
    scale = [math.sqrt(sum(row[i] ** 2 for row in rows)) or 1.0 for i in range(width)]
    scaled = [[row[i] / scale[i] for i in range(width)] for row in rows]
    left = [[sum(row[i] * row[j] for row in scaled) for j in range(width)] for i in range(width)]
    for i in range(width):
        left[i].append(sum(row[i] * value for row, value in zip(scaled, values, strict=True)))
    for i in range(width):
        pivot = max(range(i, width), key=lambda j: abs(left[j][i]))
        left[i], left[pivot] = left[pivot], left[i]
        if abs(left[i][i]) < ALIKE:
            return None
        for j in set(range(width)) - {i}:
            share = left[j][i] / left[i][i]
            left[j] = [a - share * b for a, b in zip(left[j], left[i], strict=True)]
    return [left[i][-1] / left[i][i] / scale[i] for i in range(width)]


def _run(load: str, server: str, runs: list[dict[str, Any]]) -> Run:
    seconds, turns, gap = (
        statistics.median(values)
        for values in (
            [run["seconds"] for run in runs],
            [run["turns"] for run in runs],
            [run["gap_ms"]["p50"] / 1000 for run in runs],
        )
    )
    tokens = statistics.median(run["tokens_per_s"] * run["seconds"] for run in runs)
    return Run(
        load,
        turns,
        # The median pause between two pieces of text stands for all.
        events=tokens / max(gap / _itl(load), 1.0),
        tokens=tokens,
        seconds=seconds * SERVERS[server],
        cpu={
            role: statistics.median(
                run["cpu_us_per_token"][role] * run["tokens_per_s"] * run["seconds"] / 1e6 for run in runs
            )
            for role in ROLES
        },
        at_once=statistics.median(run["at_once"] for run in runs) / SERVERS[server],
        gap=gap,
    )


def _itl(load: str) -> float:
    """Seconds between two tokens."""
    given: dict[str, Any] = getattr(LOADS[load], "keywords", {})
    milliseconds: float = (PARAMS | given)["itl_ms"]
    return milliseconds / 1000


def _intervals(runs: Sequence[Run]) -> list[tuple[float, float]]:
    """Of the loads that have all turns at once at the usual speed; where two have as many, the mean."""
    gaps: dict[float, list[float]] = {}
    for run in runs:
        if "at once" in run.load and _itl(run.load) == PARAMS["itl_ms"] / 1000:
            gaps.setdefault(run.at_once, []).append(min(run.gap, MAX_INTERVAL))
    return [(turns, statistics.mean(gaps[turns])) for turns in sorted(gaps)]
