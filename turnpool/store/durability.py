"""Waits until what was written is safe: on the disk of its server (WAITAOF), or on a replica (WAIT).

Both tell it of the writes of their own connection. So one connection writes a mark after all that is to
be safe, and waits for that; who asks while it waits goes with the next mark. What is to be safe is read in
between, since the mark may have gone to another server: one that took over and never had it.
"""

import asyncio
from collections import defaultdict
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from turnpool import keys
from turnpool.errors import NotDurableError, SettingsError, StoreAwayError
from turnpool.logs import get_logger
from turnpool.redis.errors import is_away, translated
from turnpool.redis.nodes import Node, Nodes
from turnpool.settings import Durability, Settings

log = get_logger(__name__)

# How long one mark is waited for, and how long it lives, ms. Less than a connection waits for an answer.
WAIT_MS, MARK_MS = 3000, 60_000

WAITS: dict[Durability, tuple[str | int, ...]] = {
    # On the server's own disk, on no replica's.
    Durability.AOF: ("WAITAOF", 1, 0, WAIT_MS),
    Durability.REPLICA: ("WAIT", 1, WAIT_MS),
}

# What to do about a server that does not confirm a write.
ADVICE = {
    Durability.AOF: "set appendfsync everysec or always there, or use none",
    Durability.REPLICA: "see that its replica is in step, or use aof or none",
}


class Waiter(NamedTuple):
    """Who waits for something to be safe, and how that is read."""

    prefix: str
    read: tuple[str, ...]
    answer: asyncio.Future[Any]


class Confirmer:
    """Groups those who wait, one round at a time for each node. Belongs to one event loop."""

    def __init__(self, nodes: Nodes, durability: Durability) -> None:
        self._nodes = nodes
        self._durability = durability
        self._waiting: dict[Node, list[Waiter]] = defaultdict(list)
        self._rounds: dict[Node, asyncio.Task[None]] = {}

    async def confirm(self, prefix: str, *read: str) -> Any:
        """What the command reads, once it is safe. Raises NotDurableError, StoreAwayError."""
        await self._nodes.find()
        node = self._nodes.node_of(prefix)
        if node is None:
            raise StoreAwayError("no node has the partition")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[node].append(Waiter(prefix, read, answer))
        if node not in self._rounds:
            self._rounds[node] = asyncio.create_task(self._run(node), name="confirm")
        return await answer

    async def _run(self, node: Node) -> None:
        try:
            while waiting := self._waiting.pop(node, None):
                await self._round(node, waiting)
        finally:
            del self._rounds[node]

    async def _round(self, node: Node, waiting: list[Waiter]) -> None:
        mark = ("SET", keys.mark(waiting[0].prefix), 1, "PX", MARK_MS)
        try:
            marked, *found, safe = await node.many(
                [mark, *(w.read for w in waiting), WAITS[self._durability]]
            )
        except Exception as error:  # noqa: BLE001 - the callers get it
            marked, found, safe = error, [], None
        failed = _why_not(marked, safe)
        if failed or any(isinstance(reply, Exception) for reply in found):
            self._nodes.suspect()
        for (_, _, answer), reply in zip(waiting, found or [failed] * len(waiting), strict=True):
            if answer.done():
                continue  # its caller was cancelled
            if failed or isinstance(reply, Exception):
                answer.set_exception(translated(failed or reply))
            else:
                answer.set_result(reply)


def _why_not(marked: Any, safe: Any) -> Exception | None:
    """Why a round has failed, if it has."""
    for reply in (marked, safe):
        if isinstance(reply, ResponseError) and not is_away(reply):
            return NotDurableError(f"the server says: {reply}")
        if isinstance(reply, Exception):
            return reply
    count = safe[0] if isinstance(safe, list) else safe
    return None if count else NotDurableError(f"not confirmed within {WAIT_MS / 1000:g} s")


async def check(nodes: Nodes, settings: Settings) -> None:
    """Look at the store's servers before a process starts.

    Raises SettingsError if they cannot do what TURNPOOL_DURABILITY asks, and what redis-py raises; warns of
    one that may throw keys away.
    """
    for node, prefix in {nodes.node_of(prefix): prefix for prefix in nodes.prefixes}.items():
        if node:
            await _check_node(node, prefix, settings)


async def _check_node(node: Node, prefix: str, settings: Settings) -> None:
    kind = settings.durability
    mark = ("SET", keys.mark(prefix), 1, "PX", MARK_MS)
    if kind is not Durability.NONE:
        # First, so that a server which takes no writes yet (it loads, it fails over) is away, not wrong.
        await node.execute(*mark)
    _check(_fields(await node.execute("INFO")), settings)
    if kind is not Durability.NONE and (failed := _why_not(*await node.many([mark, WAITS[kind]]))):
        if isinstance(failed, NotDurableError):
            said = f"TURNPOOL_DURABILITY={kind}, tried with a write"
            raise SettingsError(f"{said}: {failed.reason}; {ADVICE[kind]}")
        raise failed


def _check(info: dict[str, str], settings: Settings) -> None:
    if (policy := info.get("maxmemory_policy")) and policy != "noeviction":
        log.warning("redis_may_evict", policy=policy, advice="set maxmemory-policy noeviction")
    said = f"TURNPOOL_DURABILITY={settings.durability}"
    if settings.durability is Durability.AOF:
        if info.get("aof_enabled") != "1":
            raise SettingsError(f"{said}: the server writes no AOF; set appendonly yes there, or use none")
        # Valkey says 7.2.4 here for Redis' sake, whatever its own version.
        if tuple(map(int, info.get("redis_version", "0").split(".")[:2])) < (7, 2):
            raise SettingsError(f"{said}: the server has no WAITAOF; it needs Redis or Valkey 7.2")
    if settings.durability is Durability.REPLICA and info.get("connected_slaves", "0") == "0":
        raise SettingsError(f"{said}: no replica is connected to the server; start one, or use aof or none")


def _fields(info: Any) -> dict[str, str]:
    if isinstance(info, dict):
        return {str(name): str(value) for name, value in info.items()}
    lines = info.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
