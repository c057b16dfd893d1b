"""Figures of a run with real processes."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from bench.scaling.clients import Seen
from bench.scaling.fleet import Pod


def figures(seen: list[Seen]) -> dict[str, Any]:
    """Turns by how they ended, and waits in seconds."""
    return {
        "turns": len(seen),
        "ended": dict(Counter(turn.ended for turn in seen)),
        "lost": sum(turn.ended != "completed" or not turn.whole for turn in seen),
        "restarted": sum(turn.restarts > 0 for turn in seen),
        "wait_seconds": percentiles(turn.wait for turn in seen),
        "ttft_seconds": percentiles(turn.ttft for turn in seen),
    }


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """p50, p95, p99 and the most: the least value that so many do not exceed."""
    ordered = sorted(value for value in values if not math.isnan(value))
    if not ordered:
        return {}
    return {
        name: round(ordered[math.ceil(share * len(ordered)) - 1], 2)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1))
    }


def starts(pods: list[Pod]) -> dict[str, float]:
    """Seconds from when a pod was wanted to when its worker was known, of those of the run."""
    return percentiles(pod.ready_at - pod.wanted_at for pod in pods if pod.ready_at)
