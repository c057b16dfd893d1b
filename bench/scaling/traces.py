"""Traces: when which turn comes. All are the same at each call."""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from turnpool.settings import DEFAULT_TENANT


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A turn: when it comes, how long it runs, whose it is."""

    at: float
    seconds: float = 10
    tenant: str = DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class Trace:
    """Arrivals in order, over so many seconds."""

    name: str
    seconds: float
    arrivals: tuple[Arrival, ...]

    @property
    def tenants(self) -> tuple[str, ...]:
        """Whose turns they are."""
        return tuple(sorted({arrival.tenant for arrival in self.arrivals}))


def coming(rate: Callable[[float], float], start: float, end: float, rng: random.Random) -> Iterator[float]:
    """Moments of a Poisson process, by its rate a second; steps of a tenth of a second."""
    step = 0.1
    for index in range(round((end - start) / step)):
        now = start + index * step
        for _ in range(poisson(rate(now) * step, rng)):
            yield now + rng.random() * step


def poisson(mean: float, rng: random.Random) -> int:
    """How many of a Poisson process; by the normal distribution where there are many."""
    if mean > 50:  # noqa: PLR2004 - from there on the two differ by less than a hundredth
        return max(round(rng.gauss(mean, math.sqrt(mean))), 0)
    count, product, limit = 0, rng.random(), math.exp(-mean)
    while product > limit:
        count += 1
        product *= rng.random()
    return count


def burst() -> Trace:
    """Five minutes: quiet but for 600 turns at once at 30 s, and a ramp from 75 s to 210 s.

    The ramp goes up to 40 turns a second (400 running) in 75 s, stays, and is down again in the last 30 s.
    """
    rng = random.Random(1)  # noqa: S311 - the same trace at each call

    def rate(now: float) -> float:
        up, down = (now - 75) / 75, (210 - now) / 30
        return 0.5 + 39.5 * max(min(up, 1, down), 0)

    arrivals = [Arrival(at) for at in coming(rate, 0, 300, rng)]
    return _trace("burst", 300, [*arrivals, *(Arrival(30) for _ in range(600))])


def day_rate(hour: float) -> float:
    """Share of the day's peak: nights of a twentieth, a forenoon and a higher afternoon."""
    humps = 0.8 * math.exp(-(((hour - 10.5) / 2.2) ** 2)) + 0.95 * math.exp(-(((hour - 16) / 2.8) ** 2))
    return 0.05 + 0.95 * min(humps, 1)


def day() -> Trace:
    """The daily curve in five minutes, 35 turns/s (350 running) at its peak."""
    rng = random.Random(2)  # noqa: S311 - the same trace at each call
    return _trace(
        "day", 300, [Arrival(at) for at in coming(lambda now: 35 * day_rate(now / 12.5), 0, 300, rng)]
    )


def flood() -> Trace:
    """Two minutes: three tenants post a turn a second each; at 30 s a fourth posts 1,000 at once."""
    rng = random.Random(3)  # noqa: S311 - the same trace at each call
    others = [
        Arrival(at, tenant=tenant)
        for tenant in ("ada", "bob", "cleo")
        for at in coming(lambda _: 1.0, 0, 120, rng)
    ]
    return _trace("flood", 120, [*others, *(Arrival(30, tenant="flood") for _ in range(1000))])


def _trace(name: str, seconds: float, arrivals: Iterable[Arrival]) -> Trace:
    return Trace(name, seconds, tuple(sorted(arrivals)))


TRACES = {"burst": burst, "day": day, "flood": flood}


def least_worker_seconds(arrivals: Iterable[Arrival], slots: int, until: float = math.inf) -> float:
    """The least possible: every turn runs from the moment it comes, on just as many workers as it takes.

    The integral of ceil(running / slots), up to `until`: an autoscaler that sees the future, starts and stops
    workers in no time, and moves turns between workers. None that lets no turn wait can do with less.
    """
    changes = sorted(
        change
        for arrival in arrivals
        for change in ((min(arrival.at, until), 1), (min(arrival.at + arrival.seconds, until), -1))
    )
    seconds, running, before = 0.0, 0, 0.0
    for at, change in changes:
        seconds += math.ceil(running / slots) * (at - before)
        running, before = running + change, at
    return seconds


def large_day(times: int, step: float, burst: int = 600) -> Iterator[int]:
    """A real day of so many times `day`: turns that come at each step of so many seconds.

    Around the curve the rate wanders, as use does: 5 % up or down, a few minutes long. A burst of `times`
    x `burst` turns comes in one step at the quietest hour, when the fewest workers run.
    """
    rng = random.Random(4)  # noqa: S311 - the same trace at each call
    wander, kept = 0.0, math.exp(-step / 180)
    for index in range(round(86_400 / step)):
        wander = wander * kept + rng.gauss(0, 0.05) * math.sqrt(1 - kept * kept)
        hour = index * step / 3600
        mean = times * 35 * day_rate(hour) * max(1 + wander, 0) * step
        yield poisson(mean, rng) + (times * burst if index == round(3 * 3600 / step) else 0)
