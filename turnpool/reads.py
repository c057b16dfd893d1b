"""Plain reads of the store: no script, nothing changes."""

import asyncio
import base64
import binascii
import math
from collections import Counter
from typing import Any

import orjson

from turnpool import keys
from turnpool.agent import Message
from turnpool.errors import LogExpiredError, SessionNotFoundError, TurnNotFoundError, TurnpoolError
from turnpool.models import QueueState, SessionRecord, TurnRecord, WorkerInfo
from turnpool.nodes import Nodes
from turnpool.pipelined import Command

LOG_PAGE = 500
"""Events read from a log at once: a slow client then costs at most some 100 KB."""

MOST_SKIPPED = 2**31
"""More sessions than this are not of one millisecond, and Redis takes no larger number everywhere."""

MOST_MERGED = 1000
"""Sessions of one millisecond that a list merged from partitions can skip."""


class BadCursorError(TurnpoolError):
    """A list's cursor is not one that the API gave."""

    code = "bad_cursor"

    def __init__(self) -> None:
        super().__init__("The cursor is not one from next_cursor; leave it out to start anew.")


class Reads:
    """What can be read. `prefix`: of the partition with what belongs to no session, like workers."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.prefix = nodes.prefixes[0]

    @property
    def redis(self) -> Any:
        """The client of the node that has this partition, for what no method does."""
        node = self.nodes.node_of(self.prefix)
        return node.redis if node else None

    def prefix_of(self, session_id: str) -> str:
        """Prefix of a session's partition."""
        return self.nodes.prefix_of(session_id)

    def prefix_of_turn(self, turn_id: str) -> str:
        """Prefix of the partition of a turn's session."""
        return self.nodes.prefix_of(turn_id.rpartition(".")[0])

    async def session(self, session_id: str, tenant: str) -> SessionRecord:
        """A session. Raises SessionNotFoundError."""
        (session,) = await self._sessions([session_id], tenant)
        if session is None:
            raise SessionNotFoundError(session_id)
        return session

    async def _sessions(self, session_ids: list[str], tenant: str) -> list[SessionRecord | None]:
        """The sessions of these ids that are the tenant's."""
        commands: list[tuple[str, Command]] = []
        for session_id in session_ids:
            prefix = self.prefix_of(session_id)
            commands.append((prefix, ("HGETALL", keys.session(prefix, session_id))))
            commands.append((prefix, ("HGET", keys.line(prefix, session_id), "head")))
        replies = await self._read(commands)
        return [
            _session(session_id, fields, head) if fields.get(b"tenant") == tenant.encode() else None
            for session_id, fields, head in zip(session_ids, replies[::2], replies[1::2], strict=True)
        ]

    async def messages(self, session_id: str) -> list[Message]:
        """All messages of a session, oldest first."""
        prefix = self.prefix_of(session_id)
        stored = await self.nodes.execute(prefix, "LRANGE", keys.messages(prefix, session_id), 0, -1)
        return [orjson.loads(message) for message in stored]

    async def sessions(
        self, tenant: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionRecord], str | None]:
        """A tenant's sessions, the one last used first, and the cursor of the next page."""
        top, skip = _decode_cursor(cursor) if cursor else ("+inf", 0)
        found = await self._newest(tenant, top, skip, limit)
        names = [name.decode() for _, name in found]
        sessions = await self._sessions(names, tenant)
        for name in (name for name, session in zip(names, sessions, strict=True) if session is None):
            prefix = self.prefix_of(name)
            await self.nodes.execute(prefix, "ZREM", keys.sessions(prefix, tenant), name)
        there = [session for session in sessions if session is not None]
        return there, _next_cursor(found, top, skip) if len(found) == limit else None

    async def _newest(self, tenant: str, top: str, skip: int, limit: int) -> list[tuple[float, bytes]]:
        """A page of a tenant's sessions: time of last use and id, merged from all partitions."""
        alone = len(self.nodes.prefixes) == 1
        # Of several partitions each may have all that are to be skipped.
        start, count = (skip, limit) if alone else (0, min(skip, MOST_MERGED) + limit)
        span = (top, "-inf", "WITHSCORES", "LIMIT", start, count)
        replies = await self._read(
            [(p, ("ZREVRANGEBYSCORE", keys.sessions(p, tenant), *span)) for p in self.nodes.prefixes]
        )
        found = sorted(((score, name) for reply in replies for name, score in reply), reverse=True)
        return found[skip - start :][:limit]

    async def turn(self, turn_id: str, tenant: str) -> TurnRecord:
        """A turn. Raises TurnNotFoundError."""
        prefix = self.prefix_of_turn(turn_id)
        fields = await self.nodes.execute(prefix, "HGETALL", keys.turn(prefix, turn_id))
        if fields.get(b"tenant") != tenant.encode():
            raise TurnNotFoundError(turn_id)
        return TurnRecord.from_hash(fields)

    async def error_code(self, turn_id: str) -> str | None:
        """The code of the error that a turn ended with, whoever owns it; None if there is none."""
        prefix = self.prefix_of_turn(turn_id)
        code = await self.nodes.execute(prefix, "HGET", keys.turn(prefix, turn_id), "error_code")
        return code.decode() if code else None

    async def newest(self, session_id: str) -> int:
        """The number of the session's newest turn, 0 if it has had none."""
        prefix = self.prefix_of(session_id)
        return int(await self.nodes.execute(prefix, "HGET", keys.line(prefix, session_id), "n") or 0)

    async def unfinished(self, session_id: str) -> list[int]:
        """Numbers of the session's turns that have not ended, in order."""
        prefix = self.prefix_of(session_id)
        # In this order: a turn that becomes the head in between is seen twice, not missed.
        pending, head = await self._read(
            [
                (prefix, ("LRANGE", keys.pending(prefix, session_id), 0, -1)),
                (prefix, ("HGET", keys.line(prefix, session_id), "head")),
            ]
        )
        found = dict.fromkeys(turn_id for turn_id in (head, *pending) if turn_id)
        return [int(turn_id.rpartition(b".")[2]) for turn_id in found]

    async def turns(self, session_id: str, limit: int, before: int | None) -> list[TurnRecord]:
        """Turns of a session with a number below `before`, newest first."""
        prefix = self.prefix_of(session_id)
        top = await self.newest(session_id) + 1 if before is None else before
        numbers = range(top - 1, max(top - 1 - limit, 0), -1)
        hashes = await self._read(
            [(prefix, ("HGETALL", keys.turn(prefix, f"{session_id}.{n}"))) for n in numbers]
        )
        return [TurnRecord.from_hash(fields) for fields in hashes if fields]

    async def frames(self, turn_id: str, after: int) -> list[bytes]:
        """Up to LOG_PAGE events of a turn after a seq, as SSE frames."""
        prefix = self.prefix_of_turn(turn_id)
        log = keys.log(prefix, turn_id)
        entries = await self.nodes.execute(prefix, "XRANGE", log, f"({after}-0", "+", "COUNT", LOG_PAGE)
        return [fields[b"e"] for _, fields in entries]

    async def check_log(self, turn_id: str, tenant: str) -> None:
        """Raises TurnNotFoundError, or LogExpiredError if the turn is known but its events are gone."""
        prefix = self.prefix_of_turn(turn_id)
        owner, there = await self._read(
            [
                (prefix, ("HGET", keys.turn(prefix, turn_id), "tenant")),
                (prefix, ("EXISTS", keys.log(prefix, turn_id))),
            ]
        )
        if owner != tenant.encode():
            raise TurnNotFoundError(turn_id)
        if not there:
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

    async def workers(self) -> list[WorkerInfo]:
        """The workers that live."""
        names = await self.nodes.execute(self.prefix, "ZRANGE", keys.workers(self.prefix), 0, -1)
        if not names:
            return []
        wanted = [keys.worker(self.prefix, name.decode()) for name in names]
        found = await self.nodes.execute(self.prefix, "MGET", *wanted)
        infos = [orjson.loads(info) for info in found if info]
        lists = ("queues", "agents")
        return [
            WorkerInfo(**{**info, **{name: tuple(info[name]) for name in lists if name in info}})
            for info in infos
        ]

    async def ping(self) -> bool:
        """Whether Redis answers, every node of it. Raises what redis-py raises."""
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


def _session(session_id: str, fields: dict[bytes, bytes], head: bytes | None) -> SessionRecord:
    return SessionRecord(
        id=session_id,
        tenant=fields[b"tenant"].decode(),
        created_at=int(fields[b"created_at"]) / 1000,
        metadata=orjson.loads(fields[b"metadata"]),
        active_turn=head.decode() if head else None,
    )


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
        if not (math.isfinite(score) and 0 <= skip <= MOST_SKIPPED):
            raise BadCursorError
        return repr(float(score)), int(skip)
    except (binascii.Error, ValueError, TypeError):
        raise BadCursorError from None
