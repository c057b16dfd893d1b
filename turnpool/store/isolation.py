"""Trials: turns that may have killed their workers run apart from each other (docs/reliability.md)."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

from turnpool import keys
from turnpool.redis.nodes import Nodes
from turnpool.store import scripts

# Of the suspects that wait this part is on trial together, so that few losses find the one that is guilty.
# reap.lua takes the same part of a group whose worker was lost.
PART = 8


class Bench(NamedTuple):
    """What waits aside in a partition, as the reaper has found it.

    `parked`: turns that only a worker with their agent may claim, and which the one that asked has;
    `first_limit`: with how many the first suspect may be on trial, itself included, None for any number;
    `last_group`: how many were on trial together the last time, 0 if that killed a worker.
    """

    prefix: str
    parked: int
    suspects: int
    on_trial: int
    first_limit: int | None
    last_group: int

    @classmethod
    def from_reply(cls, figures: Sequence[int | bytes], place: Sequence[bytes]) -> Self:
        """From the last parts of what reap.lua gives."""
        parked, suspects, on_trial, limit, last = (int(figure) if figure else None for figure in figures)
        return cls(place[0].decode(), parked or 0, suspects or 0, on_trial or 0, limit, last or 0)


async def release(nodes: Nodes, queue: str, benches: Sequence[Bench], lease_ms: int) -> tuple[str, ...]:
    """Begin a trial if there are suspects and none is on trial; gives the queues to wake."""
    waiting = sorted((bench for bench in benches if bench.suspects), key=_urgency)
    if not waiting or any(bench.on_trial for bench in benches):
        return ()
    if len(nodes.prefixes) > 1 and not await _begins(nodes, queue, lease_ms):
        return ()
    group = _group(waiting)
    woken: list[bytes] = []
    for bench in waiting:
        if len(woken) < group:
            woken += await scripts.run(nodes, "release", bench.prefix, queue, group - len(woken), group)
    return tuple(name.decode() for name in woken)


def _group(waiting: Sequence[Bench]) -> int:
    """How many are on trial together: twice as many after each trial in which nobody was lost."""
    total = sum(bench.suspects for bench in waiting)
    group = max(math.ceil(total / PART), 2 * max(bench.last_group for bench in waiting))
    return min(total, group, waiting[0].first_limit or group)


def _urgency(bench: Bench) -> float:
    """Those who may be with few others were lost most often."""
    return bench.first_limit or math.inf


async def _begins(nodes: Nodes, queue: str, lease_ms: int) -> bool:
    """Whether this process begins the trial: a script sees one partition only, so two could begin at once."""
    home = nodes.prefix_of(queue)
    return bool(await nodes.execute(home, "SET", keys.releasing(home, queue), 1, "NX", "PX", lease_ms // 2))
