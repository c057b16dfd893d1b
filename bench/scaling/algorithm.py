"""How many workers KEDA and the Horizontal Pod Autoscaler (HPA) would run: pure, time is an argument.

Sources
- Kubernetes, "Horizontal Pod Autoscaling": algorithm details, configurable scaling behavior
  (https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/), and the API
  autoscaling/v2 (HorizontalPodAutoscalerBehavior: policies, selectPolicy, stabilizationWindowSeconds).
- KEDA, "Scaling Deployments" (https://keda.sh/docs/latest/concepts/scaling-deployments/) and "ScaledObject
  specification" (https://keda.sh/docs/latest/reference/scaledobject-spec/): KEDA takes the step between zero
  and the least number, the HPA all others. With scalingModifiers the HPA sees one external metric, what the
  formula gives, as AverageValue if nothing else is asked for.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

# --horizontal-pod-autoscaler-sync-period and --horizontal-pod-autoscaler-tolerance, as clusters have them.
SYNC_SECONDS = 15.0
TOLERANCE = 0.1
# A tenth more or less, in floats, is not outside the tolerance.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Policy:
    """So much change in so many seconds: pods, or a percentage of the replicas at the period's start."""

    type: Literal["Pods", "Percent"]
    value: int
    period_seconds: float


@dataclass(frozen=True, slots=True)
class Rules:
    """One direction of `behavior`."""

    policies: tuple[Policy, ...]
    stabilization_seconds: float
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"


# What the HPA does where a chart says nothing.
DEFAULT_UP = Rules((Policy("Pods", 4, 15), Policy("Percent", 100, 15)), 0)
DEFAULT_DOWN = Rules((Policy("Percent", 100, 15),), 300)


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a ScaledObject says. `target`: turns, waiting or running, for each replica."""

    target: float
    min_replicas: int
    max_replicas: int
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN
    polling_seconds: float = 30
    cooldown_seconds: float = 300


class _Stamped(NamedTuple):
    at: float
    replicas: int


def wanted(total: float, target: float, replicas: int) -> int:
    """Replicas for an AverageValue metric: total / target rounded up, or as now if within the tolerance.

    The tolerance is on total / (target x replicas).
    """
    if replicas and abs(1 - total / (target * replicas)) <= TOLERANCE + ROUNDING:
        return replicas
    return math.ceil(total / target)


@dataclass
class Hpa:
    """One HPA object: remembers its recommendations and changes, as the controller does."""

    scaling: Scaling
    _recommended: deque[_Stamped] = field(default_factory=deque)
    _added: deque[_Stamped] = field(default_factory=deque)
    _removed: deque[_Stamped] = field(default_factory=deque)

    def sync(self, now: float, total: float, replicas: int) -> int:
        """The replicas to have, given the metric's total and the replicas there are."""
        least = max(self.scaling.min_replicas, 1)
        # At zero replicas an HPA does nothing: KEDA takes the first step.
        if replicas == 0:
            return 0
        if not least <= replicas <= self.scaling.max_replicas:
            desired = min(max(replicas, least), self.scaling.max_replicas)
        else:
            desired = self._stable(now, wanted(total, self.scaling.target, replicas), replicas)
            desired = self._limited(now, desired, replicas)
        if desired > replicas:
            self._added.append(_Stamped(now, desired - replicas))
        elif desired < replicas:
            self._removed.append(_Stamped(now, replicas - desired))
        return desired

    def _stable(self, now: float, desired: int, replicas: int) -> int:
        """Up: the least recommended in the window; down: the most; between the two: as now.

        A recommendation that is just as old as the window does not count.
        """
        up, down = self.scaling.up.stabilization_seconds, self.scaling.down.stabilization_seconds
        while self._recommended and self._recommended[0].at <= now - max(up, down):
            self._recommended.popleft()
        floor = min([desired, *(old.replicas for old in self._recommended if old.at > now - up)])
        ceiling = max([desired, *(old.replicas for old in self._recommended if old.at > now - down)])
        self._recommended.append(_Stamped(now, desired))
        return min(max(replicas, floor), ceiling)

    def _limited(self, now: float, desired: int, replicas: int) -> int:
        """Within the policies of the direction, and between the least and the most."""
        scaling = self.scaling
        if desired > replicas:
            limit = max(self._limit(now, scaling.up, replicas, 1), replicas)
            return min(desired, limit, scaling.max_replicas)
        if desired < replicas:
            limit = min(self._limit(now, scaling.down, replicas, -1), replicas)
            return max(desired, limit, scaling.min_replicas, 1)
        return desired

    def _limit(self, now: float, rules: Rules, replicas: int, sign: int) -> int:
        """How far the policies let it go: Max is the one that changes most, Min the least."""
        if rules.select_policy == "Disabled":
            return replicas
        limits = []
        for policy in rules.policies:
            since = now - policy.period_seconds
            start = replicas - _sum(self._added, since) + _sum(self._removed, since)
            if policy.type == "Pods":
                limits.append(start + sign * policy.value)
            elif sign > 0:
                limits.append(math.ceil(start * (1 + policy.value / 100)))
            else:
                limits.append(int(start * (1 - policy.value / 100)))
        widest = (rules.select_policy == "Max") == (sign > 0)
        return max(limits) if widest else min(limits)


@dataclass
class Keda:
    """KEDA's part: from zero to the least number when there is work, to zero when there was none for long.

    Polled every `polling_seconds`. The HPA asks KEDA for the metric at each of its own syncs, so polling
    plays no part in any other step (unless useCachedMetrics is set).
    """

    scaling: Scaling
    _active_at: float = -math.inf

    def poll(self, now: float, total: float, replicas: int) -> int:
        """The replicas to have, given the metric's total and the replicas there are."""
        if total > 0:
            self._active_at = now
            return replicas or max(self.scaling.min_replicas, 1)
        if self.scaling.min_replicas == 0 and now - self._active_at >= self.scaling.cooldown_seconds:
            return 0
        return replicas


def _sum(changes: Iterable[_Stamped], since: float) -> int:
    return sum(change.replicas for change in changes if change.at > since)


class Autoscaler:
    """Both together, each at its own times; the first sync comes `phase` seconds after the start."""

    def __init__(self, scaling: Scaling, phase: float = 0.0) -> None:
        self.scaling = scaling
        self._hpa, self._keda = Hpa(scaling), Keda(scaling)
        self._sync_at = phase
        self._poll_at = phase % scaling.polling_seconds

    def look(self, now: float, total: float, replicas: int) -> int:
        """The replicas to have. Call it often: it changes nothing between the syncs and polls."""
        if now >= self._poll_at:
            self._poll_at += self.scaling.polling_seconds
            replicas = self._keda.poll(now, total, replicas)
        if now >= self._sync_at:
            self._sync_at += SYNC_SECONDS
            replicas = self._hpa.sync(now, total, replicas)
        return replicas
