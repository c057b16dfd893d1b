"""Plain reads of the store: no script, nothing changes."""

import base64
import binascii
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import orjson
from redis.asyncio import Redis

from turnpool import keys
from turnpool.agent import Message
from turnpool.errors import LogExpiredError, SessionNotFoundError, TurnNotFoundError, TurnpoolError
from turnpool.models import QueueState, SessionRecord, TurnRecord, WorkerInfo
from turnpool.pipelined import Pipelined

LOG_PAGE = 500
"""Events read from a log at once: a slow client then costs at most some 100 KB."""

MOST_SKIPPED = 2**31
"""More sessions than this are not of one millisecond, and Redis takes no larger number everywhere."""


class BadCursorError(TurnpoolError):
    """A list's cursor is not one that the API gave."""

    code = "bad_cursor"

    def __init__(self) -> None:
        super().__init__("The cursor is not one from next_cursor; leave it out to start anew.")


class Reads:
    """What can be read from one partition."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        # redis-py's reply types are unions of what any option could give; ours are bytes.
        self.redis: Any = redis
        self.pipelined = Pipelined(redis)
        self.prefix = prefix

    async def session(self, session_id: str, tenant: str) -> SessionRecord:
        """A session. Raises SessionNotFoundError."""
        (session,) = await self._sessions([session_id], tenant)
        if session is None:
            raise SessionNotFoundError(session_id)
        return session

    async def _sessions(self, session_ids: list[str], tenant: str) -> list[SessionRecord | None]:
        """The sessions of these ids that are the tenant's."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for session_id in session_ids:
                pipeline.hgetall(keys.session(self.prefix, session_id))
                pipeline.hget(keys.line(self.prefix, session_id), "head")
            replies = await pipeline.execute()
        return [
            _session(session_id, fields, head) if fields.get(b"tenant") == tenant.encode() else None
            for session_id, fields, head in zip(session_ids, replies[::2], replies[1::2], strict=True)
        ]

    async def messages(self, session_id: str) -> list[Message]:
        """All messages of a session, oldest first."""
        stored = await self.redis.lrange(keys.messages(self.prefix, session_id), 0, -1)
        return [orjson.loads(message) for message in stored]

    async def sessions(
        self, tenant: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionRecord], str | None]:
        """A tenant's sessions, the one last used first, and the cursor of the next page."""
        top, skip = _decode_cursor(cursor) if cursor else ("+inf", 0)
        index = keys.sessions(self.prefix, tenant)
        found = await self.redis.zrevrangebyscore(index, top, "-inf", start=skip, num=limit, withscores=True)
        names = [name.decode() for name, _ in found]
        sessions = await self._sessions(names, tenant)
        if gone := [name for name, session in zip(names, sessions, strict=True) if session is None]:
            await self.redis.zrem(index, *gone)
        there = [session for session in sessions if session is not None]
        return there, _next_cursor(found, top, skip) if len(found) == limit else None

    async def turn(self, turn_id: str, tenant: str) -> TurnRecord:
        """A turn. Raises TurnNotFoundError."""
        fields = await self.pipelined.execute("HGETALL", keys.turn(self.prefix, turn_id))
        if fields.get(b"tenant") != tenant.encode():
            raise TurnNotFoundError(turn_id)
        return TurnRecord.from_hash(fields)

    async def error_code(self, turn_id: str) -> str | None:
        """The code of the error that a turn ended with, whoever owns it; None if there is none."""
        code = await self.pipelined.execute("HGET", keys.turn(self.prefix, turn_id), "error_code")
        return code.decode() if code else None

    async def newest(self, session_id: str) -> int:
        """The number of the session's newest turn, 0 if it has had none."""
        return int(await self.redis.hget(keys.line(self.prefix, session_id), "n") or 0)

    async def unfinished(self, session_id: str) -> list[int]:
        """Numbers of the session's turns that have not ended, in order."""
        async with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.hget(keys.line(self.prefix, session_id), "head")
            pipeline.lrange(keys.pending(self.prefix, session_id), 0, -1)
            head, pending = await pipeline.execute()
        return [int(turn_id.rpartition(b".")[2]) for turn_id in (head, *pending) if turn_id]

    async def turns(self, session_id: str, limit: int, before: int | None) -> list[TurnRecord]:
        """Turns of a session with a number below `before`, newest first."""
        top = await self.newest(session_id) + 1 if before is None else before
        async with self.redis.pipeline(transaction=False) as pipeline:
            for n in range(top - 1, max(top - 1 - limit, 0), -1):
                pipeline.hgetall(keys.turn(self.prefix, f"{session_id}.{n}"))
            hashes = await pipeline.execute()
        return [TurnRecord.from_hash(fields) for fields in hashes if fields]

    async def frames(self, turn_id: str, after: int) -> list[bytes]:
        """Up to LOG_PAGE events of a turn after a seq, as SSE frames."""
        log = keys.log(self.prefix, turn_id)
        entries = await self.pipelined.execute("XRANGE", log, f"({after}-0", "+", "COUNT", LOG_PAGE)
        return [fields[b"e"] for _, fields in entries]

    async def check_log(self, turn_id: str, tenant: str) -> None:
        """Raises TurnNotFoundError, or LogExpiredError if the turn is known but its events are gone."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.hget(keys.turn(self.prefix, turn_id), "tenant")
            pipeline.exists(keys.log(self.prefix, turn_id))
            owner, there = await pipeline.execute()
        if owner != tenant.encode():
            raise TurnNotFoundError(turn_id)
        if not there:
            raise LogExpiredError(turn_id)

    async def queue_state(self, queue: str) -> QueueState:
        """How much waits and runs in a queue."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.zcard(keys.queued(self.prefix, queue))
            pipeline.zcard(keys.leases(self.prefix, queue))
            pipeline.zrange(keys.queued(self.prefix, queue), 0, 0, withscores=True)
            pipeline.time()
            pipeline.zrange(keys.tenants(self.prefix, queue), 0, -1)
            queued, running, oldest, (seconds, microseconds), tenants = await pipeline.execute()
            for tenant in tenants:
                pipeline.zcard(keys.ready(self.prefix, queue, tenant.decode()))
            ready = sum(await pipeline.execute())
        waited = seconds + microseconds / 1e6 - oldest[0][1] / 1000 if oldest else 0.0
        return QueueState(queue, queued, ready, running, max(waited, 0.0))

    async def workers(self) -> list[WorkerInfo]:
        """The workers that live."""
        names = await self.redis.zrange(keys.workers(self.prefix), 0, -1)
        if not names:
            return []
        found = await self.redis.mget([keys.worker(self.prefix, name.decode()) for name in names])
        infos = [orjson.loads(info) for info in found if info]
        return [WorkerInfo(**{**info, "queues": tuple(info["queues"])}) for info in infos]

    async def ping(self) -> bool:
        """Whether Redis answers."""
        return bool(await self.pipelined.execute("PING"))

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Any]:
        """A pub/sub connection, closed at the end."""
        async with self.redis.pubsub() as pubsub:
            yield pubsub


def _session(session_id: str, fields: dict[bytes, bytes], head: bytes | None) -> SessionRecord:
    return SessionRecord(
        id=session_id,
        tenant=fields[b"tenant"].decode(),
        created_at=int(fields[b"created_at"]) / 1000,
        metadata=orjson.loads(fields[b"metadata"]),
        active_turn=head.decode() if head else None,
    )


def _next_cursor(found: list[tuple[bytes, float]], top: str, skip: int) -> str:
    """Where the next page starts: a score, and how many of that score were given already."""
    last = found[-1][1]
    same = sum(1 for _, score in found if score == last)
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
