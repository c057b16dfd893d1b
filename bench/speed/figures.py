"""The figures of one load on one server: ms, tokens a second, microseconds of CPU a token, bytes."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.speed.streams import Told

Run = dict[str, Any]

# The role of the load client, which is no part of a server.
CLIENT = "client"
# What else runs on the machine, and disturbs.
OTHERS = "others"
# The part of the time to first token that is the model's own: as in loads.PARAMS.
MODEL_TTFT = 0.02


@dataclass
class Usage:
    """By role: CPU seconds, and bytes of memory at its highest over what it was at rest."""

    cpu: dict[str, float] = field(default_factory=dict)
    rss: dict[str, int] = field(default_factory=dict)
    others: float = 0.0
    """CPU seconds of all other processes of the machine."""


def figures(told: Sequence[Told], usage: Usage) -> Run:
    """All of them. What is added to the time to first token may be below zero by the clock's grain."""
    start = min(each.started for each in told)
    seconds = max(each.started + each.ended for each in told) - start
    tokens = sum(each.tokens for each in told)
    at_once = most_at_once(told)
    return answered(told) | {
        "at_once": at_once,
        "seconds": seconds,
        "gap_ms": percentiles([gap for each in told for gap in each.gaps]),
        "tokens_per_s": tokens / seconds,
        "cpu_us_per_token": {role: cpu / max(tokens, 1) * 1e6 for role, cpu in usage.cpu.items()},
        "cpu_cores": {role: cpu / seconds for role, cpu in (usage.cpu | {OTHERS: usage.others}).items()},
        "rss_per_turn": {role: size / at_once for role, size in usage.rss.items()},
    }


def answered(told: Sequence[Told]) -> Run:
    """How many turns there were, how many not whole, and how long they took to be accepted and to begin."""
    start = min(each.started for each in told)
    return {
        "turns": len(told),
        "errors": sum(not each.whole for each in told),
        "ttft_added_ms": percentiles([each.ttft - MODEL_TTFT for each in told]),
        "accepted_per_s": len(told) / (max(each.started + each.accepted for each in told) - start),
    }


def most_at_once(told: Sequence[Told]) -> int:
    """Turns under way at the same time, at most."""
    changes = [(each.started, 1) for each in told] + [(each.started + each.ended, -1) for each in told]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the most, in ms; nothing of nothing."""
    if not seconds:
        return {}
    # quantiles wants two at least.
    cuts = statistics.quantiles(seconds if len(seconds) > 1 else [*seconds] * 2, n=100, method="inclusive")
    return {"p50": cuts[49] * 1000, "p99": cuts[98] * 1000, "max": max(seconds) * 1000}
