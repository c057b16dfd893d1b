"""Plain reads of the store: no script, nothing changes."""

import asyncio
import base64
import binascii
import contextlib
import itertools
import math
from collections import Counter
from typing import Any

import orjson

from turnpool import keys
from turnpool.errors import LogExpiredError, SessionNotFoundError, TurnNotFoundError, TurnpoolError
from turnpool.ids import number_of, scoped
from turnpool.models import Progress, QueueFlow, QueueState, SessionRecord, TurnRecord, WorkerInfo
from turnpool.redis.nodes import Nodes
from turnpool.redis.pipelined import Command
from turnpool.store.pages import PAGE_BYTES, Pages

MAX_SKIPPED = 2**31
"""More sessions than this are not of one millisecond, and Redis takes no larger number everywhere."""

MAX_MERGED = 1000
"""Sessions of one millisecond that a list merged from partitions can skip."""


class BadCursorError(TurnpoolError):
    """A list's cursor is not one that the API gave."""

    code = "bad_cursor"

    def __init__(self) -> None:
        super().__init__("The cursor is not one from next_cursor; leave it out to start anew.")


class StoreQueries(Pages):
    """What can be read. `prefix`: of the partition with what belongs to no session, like workers."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(nodes)
        self.prefix = nodes.prefixes[0]

    @property
    def redis(self) -> Any:
        """The client of the node that has this partition, for what no method does."""
        node = self.nodes.node_of(self.prefix)
        return node.redis if node else None

    def channel(self, session_id: str, tenant: str) -> tuple[str, str]:
        """Prefix of a session's partition, and the channel of its events."""
        name = scoped(tenant, session_id)
        prefix = self.prefix_of(name)
        return prefix, keys.events(prefix, str(self.nodes.database), name)

    async def session(self, session_id: str, tenant: str) -> SessionRecord:
        """A session. Raises SessionNotFoundError."""
        (session,) = await self._sessions([scoped(tenant, session_id)], with_metadata=True)
        if session is None:
            raise SessionNotFoundError(session_id)
        return session

    async def check_session(self, session_id: str, tenant: str) -> None:
        """Raises SessionNotFoundError."""
        name = scoped(tenant, session_id)
        prefix = self.prefix_of(name)
        if not await self.nodes.execute(prefix, "EXISTS", keys.session(prefix, name)):
            raise SessionNotFoundError(session_id)

    async def _sessions(self, scoped_ids: list[str], *, with_metadata: bool) -> list[SessionRecord | None]:
        """The sessions of these scoped ids; None for each that is gone."""
        fields = ("created_at", "metadata")[: 2 if with_metadata else 1]
        commands: list[tuple[str, Command]] = []
        for name in scoped_ids:
            prefix = self.prefix_of(name)
            commands.append((prefix, ("EXISTS", keys.session(prefix, name))))
            commands.append((prefix, ("HMGET", keys.session(prefix, name), *fields)))
            commands.append((prefix, ("HGET", keys.line(prefix, name), "head")))
        replies = await self._read(commands)
        rows = zip(scoped_ids, replies[::3], replies[1::3], replies[2::3], strict=True)
        return [
            SessionRecord.from_values(name, fields, values, head) if exists else None
            for name, exists, values, head in rows
        ]

    async def sessions(
        self, tenant: str, limit: int, cursor: str | None, *, with_metadata: bool = False
    ) -> tuple[list[SessionRecord], str | None]:
        """A tenant's sessions, the one last used first, and the cursor of the next page.

        A page with metadata ends where that of the next session would make it larger than PAGE_BYTES.
        """
        top, skip = _decode_cursor(cursor) if cursor else ("+inf", 0)
        found = await self._newest(tenant, top, skip, limit)
        whole = len(found) == limit
        async with self.page_slot() if with_metadata else contextlib.nullcontext():
            if with_metadata:
                fitting = await self._fitting(found)
                whole, found = whole or fitting < len(found), found[:fitting]
            names = [name.decode() for _, name in found]
            sessions = await self._sessions(names, with_metadata=with_metadata)
        for name in (name for name, session in zip(names, sessions, strict=True) if session is None):
            prefix = self.prefix_of(name)
            await self.nodes.execute(prefix, "ZREM", keys.sessions(prefix, tenant), name)
        there = [session for session in sessions if session is not None]
        return there, _next_cursor(found, top, skip) if whole and found else None

    async def _fitting(self, found: list[tuple[float, bytes]]) -> int:
        """How many of these sessions make a page with their metadata: one at least."""
        names = [name.decode() for _, name in found]
        places = [(self.prefix_of(name), name) for name in names]
        sizes = await self._read([(p, ("HSTRLEN", keys.session(p, name), "metadata")) for p, name in places])
        fitting = sum(1 for size in itertools.accumulate(sizes) if size <= PAGE_BYTES)
        return max(fitting, 1) if found else 0

    async def _newest(self, tenant: str, top: str, skip: int, limit: int) -> list[tuple[float, bytes]]:
        """A page of a tenant's sessions: time of last use and id, merged from all partitions."""
        alone = len(self.nodes.prefixes) == 1
        # Of several partitions each may have all that are to be skipped.
        start, count = (skip, limit) if alone else (0, min(skip, MAX_MERGED) + limit)
        span = (top, "-inf", "WITHSCORES", "LIMIT", start, count)
        replies = await self._read(
            [(p, ("ZREVRANGEBYSCORE", keys.sessions(p, tenant), *span)) for p in self.nodes.prefixes]
        )
        found = sorted(((score, name) for reply in replies for name, score in reply), reverse=True)
        return found[skip - start :][:limit]

    async def turn(self, turn_id: str, tenant: str) -> TurnRecord:
        """A turn. Raises TurnNotFoundError."""
        name = scoped(tenant, turn_id)
        prefix = self.prefix_of_turn(name)
        fields = await self.nodes.execute(prefix, "HGETALL", keys.turn(prefix, name))
        if not fields:
            raise TurnNotFoundError(turn_id)
        return TurnRecord.from_hash(fields)

    async def progress(self, turn_id: str, tenant: str) -> Progress:
        """How far a turn is, without its bodies. Raises TurnNotFoundError."""
        name = scoped(tenant, turn_id)
        prefix = self.prefix_of_turn(name)
        owner, status, seq = await self.nodes.execute(
            prefix, "HMGET", keys.turn(prefix, name), "tenant", "status", "seq"
        )
        if owner is None:
            raise TurnNotFoundError(turn_id)
        return Progress.from_values(status, seq)

    async def error_code(self, scoped_id: str) -> str | None:
        """The code of the error that a turn ended with; None if there is none."""
        prefix = self.prefix_of_turn(scoped_id)
        code = await self.nodes.execute(prefix, "HGET", keys.turn(prefix, scoped_id), "error_code")
        return code.decode() if code else None

    async def newest(self, session_id: str, tenant: str) -> int:
        """The number of the session's newest turn, 0 if it has had none."""
        name = scoped(tenant, session_id)
        prefix = self.prefix_of(name)
        return int(await self.nodes.execute(prefix, "HGET", keys.line(prefix, name), "n") or 0)

    async def unfinished(self, session_id: str, tenant: str) -> list[int]:
        """Numbers of the session's turns that have not ended, in order."""
        name = scoped(tenant, session_id)
        prefix = self.prefix_of(name)
        # In this order: a turn that becomes the head in between is seen twice, not missed.
        pending, head = await self._read(
            [
                (prefix, ("LRANGE", keys.pending(prefix, name), 0, -1)),
                (prefix, ("HGET", keys.line(prefix, name), "head")),
            ]
        )
        found = dict.fromkeys(turn_id for turn_id in (head, *pending) if turn_id)
        return [number_of(turn_id.decode()) for turn_id in found]

    async def check_log(self, turn_id: str, tenant: str) -> None:
        """Raises TurnNotFoundError, or LogExpiredError if the turn is known but its events are gone."""
        name = scoped(tenant, turn_id)
        prefix = self.prefix_of_turn(name)
        known, logged = await self._read(
            [
                (prefix, ("EXISTS", keys.turn(prefix, name))),
                (prefix, ("EXISTS", keys.log(prefix, name))),
            ]
        )
        if not known:
            raise TurnNotFoundError(turn_id)
        if not logged:
            raise LogExpiredError(turn_id)

    async def queue_state(self, queue: str) -> QueueState:
        """How much waits and runs in a queue."""
        commands: list[tuple[str, Command]] = []
        for p in self.nodes.prefixes:
            commands += [
                (p, ("ZCARD", keys.queued(p, queue))),
                (p, ("ZCARD", keys.leases(p, queue))),
                (p, ("ZRANGE", keys.queued(p, queue), 0, 0, "WITHSCORES")),
                (p, ("TIME",)),
                (p, ("ZRANGE", keys.tenants(p, queue), 0, -1)),
                (p, ("ZCARD", keys.suspects(p, queue))),
                (p, ("ZRANGE", keys.unserved(p, queue), 0, -1)),
            ]
        replies = await self._read(commands)
        asides = zip(self.nodes.prefixes, replies[6::7], strict=True)
        waits = [
            max(seconds + microseconds / 1e6 - oldest[0][1] / 1000, 0.0)
            for oldest, (seconds, microseconds) in zip(replies[2::7], replies[3::7], strict=True)
            if oldest
        ]
        ready = await self._read(
            [
                (p, ("ZCARD", keys.ready(p, queue, tenant.decode())))
                for p, tenants in zip(self.nodes.prefixes, replies[4::7], strict=True)
                for tenant in tenants
            ]
        )
        queued, running, suspects = (sum(replies[n::7]) for n in (0, 1, 5))
        parked = await self._parked(queue, [(p, agent.decode()) for p, agents in asides for agent in agents])
        return QueueState(queue, queued, sum(ready), running, max(waits, default=0.0), suspects, parked)

    async def _parked(self, queue: str, places: list[tuple[str, str]]) -> dict[str, int]:
        """Turns by agent, of these partitions and agents."""
        counts = await self._read([(p, ("ZCARD", keys.parked(p, queue, agent))) for p, agent in places])
        total: Counter[str] = Counter()
        for (_, agent), count in zip(places, counts, strict=True):
            total[agent] += count
        return {agent: count for agent, count in total.items() if count}

    async def queue_flow(self, queue: str) -> QueueFlow:
        """How turns pass through a queue, in all partitions together."""
        commands: list[tuple[str, Command]] = []
        for p in self.nodes.prefixes:
            commands += [
                (p, ("ZCARD", keys.queued(p, queue))),
                (p, ("ZCARD", keys.leases(p, queue))),
                (p, ("HGET", keys.service(p, queue), "left")),
            ]
        replies = await self._read(commands)
        return QueueFlow(sum(replies[::3]), sum(replies[1::3]), sum(int(left or 0) for left in replies[2::3]))

    async def workers(self) -> list[WorkerInfo]:
        """The workers that live."""
        names = await self.nodes.execute(self.prefix, "ZRANGE", keys.workers(self.prefix), 0, -1)
        if not names:
            return []
        wanted = [keys.worker(self.prefix, name.decode()) for name in names]
        found = await self.nodes.execute(self.prefix, "MGET", *wanted)
        return [
            WorkerInfo.from_json(name.decode(), record)
            for name, record in zip(names, found, strict=True)
            if record
        ]

    async def ping(self) -> bool:
        """Whether Redis answers, every node of it. Raises StoreAwayError."""
        for error in await self.nodes.ping():
            if error:
                raise error
        return True

    async def reachable(self) -> bool:
        """Whether Redis answers, if only one node of it: then some sessions can be served."""
        return await self.nodes.reachable()

    async def _read(self, commands: list[tuple[str, Command]]) -> list[Any]:
        """Answers of all commands, one round trip for each node."""
        return await asyncio.gather(*(self.nodes.execute(prefix, *command) for prefix, command in commands))


def _next_cursor(found: list[tuple[float, bytes]], top: str, skip: int) -> str:
    """Where the next page starts: a score, and how many of that score were given already."""
    last = found[-1][0]
    same = sum(1 for score, _ in found if score == last)
    if top != "+inf" and float(top) == last:
        same += skip
    return base64.urlsafe_b64encode(orjson.dumps([last, same])).decode()


def _decode_cursor(cursor: str) -> tuple[str, int]:
    try:
        score, skip = orjson.loads(base64.urlsafe_b64decode(cursor))
        if not (math.isfinite(score) and 0 <= skip <= MAX_SKIPPED):
            raise BadCursorError
        return repr(float(score)), int(skip)
    except (binascii.Error, ValueError, TypeError):
        raise BadCursorError from None
