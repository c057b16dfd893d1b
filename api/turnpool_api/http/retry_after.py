"""When a refused client should ask again, in whole seconds: what `Retry-After` says.

A full queue has room again as fast as turns leave it. The rate is measured (`observe`), and refused clients
are told times one after another at this rate, so that they do not all come back to the same free place (a
virtual schedule, as in the generic cell rate algorithm).
"""

import math
import random
import time
from collections import deque
from collections.abc import Callable

from turnpool.errors import QueueFullError, SessionFullError, TurnpoolError
from turnpool.models import QueueFlow
from turnpool_api.http.errors import DrainingError, TurnUnfinishedError

LEAST, MOST = 1, 60
# Seconds of its past that a queue's rate is measured over: long enough for slow turns, short enough for a
# pool that grows.
WINDOW = 60.0
# Seconds told before there is a rate: two looks at the queue, and one more.
UNMEASURED = 5
# Seconds in which a load balancer finds out that this process drains: a readiness probe or two.
NOTICED = 5
# Longest time told for what passes by itself, as a store that is failing over. Jitter spreads the clients.
SHORT = 4

Clock = Callable[[], float]


class Pace:
    """How fast turns leave a queue while any wait there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looks: deque[tuple[float, QueueFlow]] = deque()
        self._next = 0.0

    def observe(self, flow: QueueFlow) -> None:
        """A look at the queue. While nothing waits, turns leave as they are posted: that says nothing."""
        now = self._clock()
        if not flow.queued or (self._looks and flow.left < self._looks[-1][1].left):
            self._looks.clear()
        self._looks.append((now, flow))
        while self._looks[0][0] < now - WINDOW:
            self._looks.popleft()

    def rate(self) -> float | None:
        """Turns a second; None if it is not measured yet. With none so far, the next may leave just now."""
        if len(self._looks) < 2:  # noqa: PLR2004 - a rate is between two
            return None
        (began, first), (ended, last) = self._looks[0], self._looks[-1]
        if last.left > first.left:
            return (last.left - first.left) / (ended - began)
        return 1 / max(self._clock() - began, 1.0)

    def until_room(self) -> float:
        """Seconds until a place is free that nobody else was told of."""
        rate = self.rate()
        if rate is None:
            return UNMEASURED
        now = self._clock()
        self._next = max(self._next, now) + 1 / rate
        if self._next <= now + MOST:
            return self._next - now
        self._next = now + MOST
        return random.uniform(MOST / 2, MOST)  # noqa: S311 - spreads clients, no secret

    def until_end(self) -> float:
        """Seconds until a turn that runs has ended: the mean time of one (Little's law)."""
        rate = self.rate()
        if rate is None:
            return UNMEASURED
        return self._looks[-1][1].running / rate


class RetryAfter:
    """What this process tells refused clients."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._paces: dict[str, Pace] = {}
        self._ends_at: float | None = None

    def observe(self, queue: str, flow: QueueFlow) -> None:
        """A look at a queue, every few seconds."""
        self._pace(queue).observe(flow)

    def ends_in(self, seconds: float) -> None:
        """This process ends in so many seconds."""
        self._ends_at = self._clock() + seconds

    def seconds(self, error: TurnpoolError) -> int:
        """When to ask again after this error."""
        match error:
            case QueueFullError():
                return _whole(self._pace(error.queue).until_room())
            case SessionFullError():
                return _whole(self._pace(error.queue).until_end())
            case DrainingError() | TurnUnfinishedError():
                return self.draining()
        return shortly()

    def draining(self) -> int:
        """When another process has the requests: once this one is known to drain, or is gone."""
        if self._ends_at is None:
            return NOTICED
        return _whole(min(NOTICED, self._ends_at - self._clock()))

    def _pace(self, queue: str) -> Pace:
        return self._paces.setdefault(queue, Pace(self._clock))


def shortly() -> int:
    """When to ask again after what passes by itself."""
    return random.randint(LEAST, SHORT)  # noqa: S311 - spreads clients, no secret


def _whole(seconds: float) -> int:
    return max(LEAST, min(MOST, math.ceil(seconds)))
