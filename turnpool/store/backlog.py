"""How a queue lies over the partitions: how much waits in each, and which to claim from."""

import asyncio
import random
from collections import defaultdict

from turnpool import keys
from turnpool.errors import StoreAwayError
from turnpool.redis.nodes import Nodes

# Seconds a count may be old: a limit on a queue is as exact as this, and costs a round trip as often.
COUNT_SECONDS = 1.0


class Backlog:
    """Turns that wait in the partitions of each queue, as of a moment ago. Belongs to one event loop."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._counts: dict[str, dict[str, int]] = defaultdict(dict)
        self._counted: dict[str, float] = {}
        self._counting: dict[str, asyncio.Task[None]] = {}

    async def elsewhere(self, queue: str, prefix: str) -> int:
        """How many wait in all partitions but this one; 0 where there is no other."""
        if len(self._nodes.prefixes) == 1:
            return 0
        now = asyncio.get_running_loop().time()
        if self._counted.get(queue, -COUNT_SECONDS) + COUNT_SECONDS <= now:
            self._counted[queue] = now
            self._counting[queue] = asyncio.create_task(self._count(queue))
        if queue not in self._counts:
            await asyncio.shield(self._counting[queue])
        counts = self._counts[queue]
        return sum(counts.values()) - counts.get(prefix, 0)

    async def _count(self, queue: str) -> None:
        prefixes = self._nodes.prefixes
        try:
            replies = await self._nodes.many([(p, ("ZCARD", keys.queued(p, queue))) for p in prefixes])
        except StoreAwayError:
            replies = []
        # What does not answer counts as it did before.
        counts = self._counts[queue]
        counts.update(
            (prefix, reply)
            for prefix, reply in zip(prefixes, replies, strict=False)
            if isinstance(reply, int)
        )


async def where_to_claim(nodes: Nodes, queue: str) -> list[str]:
    """Prefixes of partitions to claim from, the best first.

    Within a partition the scripts are fair. Between partitions a lottery is: first among the tenants
    that are next in line somewhere, each with the same chance (Waldspurger, Weihl 1994); then the
    tenant's partitions come by priority and age. Raises if no node answers.
    """
    if len(nodes.prefixes) == 1:
        return list(nodes.prefixes)
    heads = await nodes.many([(p, ("ZRANGE", keys.tenants(p, queue), 0, 0)) for p in nodes.prefixes])
    places: dict[bytes, list[str]] = defaultdict(list)
    for prefix, head in zip(nodes.prefixes, heads, strict=True):
        if isinstance(head, list) and head:
            places[head[0]].append(prefix)
    if not places:
        for head in heads:
            if isinstance(head, Exception):
                raise head
        return []
    tenants = list(places)
    random.shuffle(tenants)
    first = places.pop(tenants[0])
    others = [prefix for prefixes in places.values() for prefix in prefixes]
    random.shuffle(others)
    return [*await _by_age(nodes, queue, tenants[0].decode(), first), *others]


async def _by_age(nodes: Nodes, queue: str, tenant: str, prefixes: list[str]) -> list[str]:
    """A tenant's partitions by priority and age of the turn that is next there."""
    if len(prefixes) == 1:
        return prefixes
    firsts = await nodes.many(
        [(p, ("ZRANGE", keys.ready(p, queue, tenant), 0, 0, "WITHSCORES")) for p in prefixes]
    )
    scores = {
        prefix: first[0][1] if isinstance(first, list) and first else float("inf")
        for prefix, first in zip(prefixes, firsts, strict=True)
    }
    return sorted(prefixes, key=scores.__getitem__)
