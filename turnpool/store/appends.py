"""The events of many turns with few calls of `lua/append.lua`."""

from collections.abc import Iterator, Sequence
from typing import Any

from turnpool.errors import StoreAwayError
from turnpool.redis.nodes import Nodes
from turnpool.store import scripts

# Turns whose events go with one call: calling a script costs Redis more than an event does, but while
# it runs no other does.
MAX_TURNS = 50

Write = tuple[str, Sequence[scripts.Argument]]
"""Prefix of a turn's partition, and what append.lua wants of the turn."""


async def append(nodes: Nodes, writes: Sequence[Write]) -> list[Any]:
    """Write; for each turn the script's answer or the error, which concerns that turn only."""
    replies = await _append(nodes, writes, MAX_TURNS)
    # What is wrong with one turn fails its whole call, so each of these is tried by itself.
    failed = [
        place
        for place, reply in enumerate(replies)
        if isinstance(reply, Exception) and not isinstance(reply, StoreAwayError)
    ]
    if failed:
        again = await _append(nodes, [writes[place] for place in failed], 1)
        for place, reply in zip(failed, again, strict=True):
            replies[place] = reply
    return replies


async def _append(nodes: Nodes, writes: Sequence[Write], most: int) -> list[Any]:
    groups = list(_grouped([prefix for prefix, _ in writes], most))
    calls = [(prefix, [value for place in places for value in writes[place][1]]) for prefix, places in groups]
    answers = await scripts.run_many(nodes, "append", calls)
    replies: list[Any] = [None] * len(writes)
    for (_, places), answer in zip(groups, answers, strict=True):
        each = [answer] * len(places) if isinstance(answer, Exception) else answer
        for place, reply in zip(places, each, strict=True):
            replies[place] = reply
    return replies


def _grouped(prefixes: Sequence[str], most: int) -> Iterator[tuple[str, list[int]]]:
    """Places of the same prefix together, so many at most, in their order."""
    places: dict[str, list[int]] = {}
    for place, prefix in enumerate(prefixes):
        places.setdefault(prefix, []).append(place)
    for prefix, some in places.items():
        for start in range(0, len(some), most):
            yield prefix, some[start : start + most]
