"""The store: one method per script in `lua/`, and the plain reads in `reads.py`.

Every method raises what redis-py raises when Redis is away (`turnpool.redis.is_away`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Self

import orjson
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from turnpool import keys, scripts
from turnpool.errors import (
    IdempotencyMismatchError,
    LeaseLostError,
    QueueFullError,
    SessionBusyError,
    SessionExistsError,
    SessionFullError,
    SessionNotFoundError,
    TurnNotFoundError,
)
from turnpool.events import Entry
from turnpool.models import Claim, NewTurn, Outcome, Reaped, Submitted, TurnRecord, WorkerInfo
from turnpool.reads import Reads
from turnpool.redis import connect
from turnpool.settings import Settings


class Held(NamedTuple):
    """A worker's hold on a turn: which attempt it is, and the seq of the last event it has written."""

    turn_id: str
    attempt: int
    seq: int


class Cancelled(NamedTuple):
    """What a cancel did: `cancelled` at once, `cancelling` by its worker, or had `ended` before."""

    state: str
    woken: tuple[str, ...]


class Store(Reads):
    """Sessions, turns and their events in one partition of Redis."""

    def __init__(self, redis: Redis, settings: Settings, partition: str = "0") -> None:
        super().__init__(redis, keys.prefix(partition))
        self.settings = settings
        self._lease_ms = int(settings.lease_seconds * 1000)
        self._kept = (settings.session_ttl, settings.log_ttl)

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """A store at the server that the settings name; nothing connects yet."""
        return cls(connect(settings.store), settings)

    async def create_session(self, session_id: str, tenant: str, metadata: dict[str, Any]) -> None:
        """Create a session. Raises SessionExistsError."""
        made = await self._run("create_session", session_id, tenant, orjson.dumps(metadata), *self._kept)
        if not made:
            raise SessionExistsError(session_id)

    async def delete_session(self, session_id: str, tenant: str) -> None:
        """Delete a session and cancel what waits or runs. Raises SessionNotFoundError."""
        if not await self._run("delete_session", session_id, tenant, *self._kept):
            raise SessionNotFoundError(session_id)

    async def submit(self, new: NewTurn) -> Submitted:
        """Accept a turn.

        Raises SessionNotFoundError (it belongs to another tenant), SessionBusyError,
        QueueFullError, SessionFullError, IdempotencyMismatchError.
        """
        reply = await self._run(
            "submit",
            new.session_id,
            new.tenant,
            new.weight,
            new.queue,
            new.agent,
            new.priority,
            b"\n".join(map(orjson.dumps, new.input)),
            orjson.dumps(new.params),
            orjson.dumps(new.metadata),
            int(new.deadline_seconds * 1000),
            new.on_busy,
            new.idempotency_key,
            new.body_digest,
            new.traceparent,
            self.settings.max_queued,
            self.settings.max_session_queued,
            *self._kept,
        )
        match reply[0]:
            case b"accepted":
                return Submitted(reply[1].decode(), replayed=False, woken=_names(reply[3:]))
            case b"replayed":
                return Submitted(reply[1].decode(), replayed=True)
            case b"session_busy":
                raise SessionBusyError(reply[1].decode())
            case b"session_full":
                raise SessionFullError(new.session_id)
            case b"queue_full":
                raise QueueFullError(new.queue)
            case b"idempotency_mismatch":
                raise IdempotencyMismatchError
        raise SessionNotFoundError(new.session_id)

    async def claim(
        self, queue: str, worker_id: str, continuing: Iterable[str] = ()
    ) -> tuple[Claim | None, tuple[str, ...]]:
        """Take the best ready turn of the queue, or None; and the queues to wake.

        `continuing`: the agents that go on from the text of an earlier attempt.
        """
        fields, messages, steps, woken = await self._run(
            "claim", queue, worker_id, self._lease_ms, *self._kept, *continuing
        )
        if not fields:
            return None, _names(woken)
        values = _pairs(fields)
        claim = Claim(
            turn=TurnRecord.from_hash(values),
            messages=[orjson.loads(message) for message in messages],
            steps={name.decode(): value for name, value in _pairs(steps).items()},
            remaining_seconds=float(values[b"remaining"]) / 1000,
            restart=values[b"restart"].decode() if b"restart" in values else None,
            partial=values.get(b"partial", b"").decode(),
            traceparent=values.get(b"traceparent", b"").decode(),
        )
        return claim, _names(woken)

    async def append(self, batches: Iterable[tuple[Held, Sequence[Entry]]]) -> list[bool]:
        """Add events to running turns, all in one round trip. For each: whether the attempt holds.

        May be called again with the same batches when the answer was lost; events come once.
        """
        calls = [(*held, *_flat(entries)) for held, entries in batches]
        try:
            return [bool(reply) for reply in await self._pipeline("append", calls)]
        except NoScriptError:
            await scripts.send(self.redis, "append")
            return [bool(reply) for reply in await self._pipeline("append", calls)]

    async def settle(self, held: Held, entries: Sequence[Entry], outcome: Outcome) -> tuple[str, ...]:
        """End a turn, its last events first; gives the queues to wake. Raises LeaseLostError.

        May be called again when the answer was lost.
        """
        events = _flat(entries)
        reply = await self._run(
            "settle",
            held.turn_id,
            held.attempt,
            held.seq,
            outcome.status,
            outcome.fields,
            outcome.output,
            orjson.dumps(outcome.usage) if outcome.usage else "",
            *outcome.error,
            *self._kept,
            len(events),
            *events,
            *map(orjson.dumps, outcome.messages),
        )
        if not reply[0]:
            raise LeaseLostError(held.turn_id, held.attempt)
        return _names(reply[1:])

    async def hand_back(self, held: Held, entries: Sequence[Entry]) -> tuple[str, ...]:
        """Give a running turn to the others, or end it if it is cancelled; gives the queues to wake."""
        return _names([await self._run("hand_back", *held, *self._kept, *_flat(entries))])

    async def renew(self, worker: WorkerInfo, held: Iterable[tuple[str, int]]) -> dict[str, str]:
        """Renew the leases of a worker's turns (id, attempt).

        Gives those to stop: `lost` or `cancelled` by `<id>/<attempt>`.
        """
        turns = [value for pair in held for value in pair]
        reply = await self._run("renew", worker.id, self._lease_ms, orjson.dumps(asdict(worker)), *turns)
        return {name.decode(): why.decode() for name, why in _pairs(reply).items()}

    async def reap(self, queue: str) -> Reaped:
        """Take the turns of dead workers from them."""
        reply = await self._run("reap", queue, self._lease_ms, self.settings.max_attempts, *self._kept)
        return Reaped(*map(_names, reply))

    async def expire(self, queue: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Fail the waiting turns that are past their deadline: their ids, and the queues to wake."""
        ended, woken = await self._run("expire", queue, *self._kept)
        return _names(ended), _names(woken)

    async def cancel(self, turn_id: str, tenant: str) -> Cancelled:
        """Cancel a turn. Raises TurnNotFoundError."""
        reply = await self._run("cancel", turn_id, tenant, *self._kept)
        state = reply[0].decode()
        if state == TurnNotFoundError.code:
            raise TurnNotFoundError(turn_id)
        return Cancelled(state, _names(reply[1:]))

    async def record_step(self, held: Held, name: str, result: bytes) -> bytes:
        """Record that a step is under way (empty), or its result; gives the one recorded before, if any.

        Raises LeaseLostError.
        """
        recorded = await self._run("record_step", held.turn_id, held.attempt, name, result)
        if recorded is None:
            raise LeaseLostError(held.turn_id, held.attempt)
        return bytes(recorded)

    async def top_up(self, queue: str, listed: int, interval_ms: int) -> int:
        """How many wake-ups to publish, the broker's list holding `listed`; below zero, to take away."""
        return int(await self._run("top_up", queue, listed, interval_ms))

    async def leave(self, worker_id: str) -> None:
        """Take a worker that ends off the list."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            pipeline.delete(keys.worker(self.prefix, worker_id))
            pipeline.zrem(keys.workers(self.prefix), worker_id)
            await pipeline.execute()

    async def close(self) -> None:
        """Close the connections."""
        await self.redis.aclose()

    async def _run(self, name: str, *arguments: scripts.Argument) -> Any:
        return await scripts.run(self.pipelined, name, self.prefix, *arguments)

    async def _pipeline(self, name: str, calls: list[tuple[scripts.Argument, ...]]) -> list[Any]:
        async with self.redis.pipeline(transaction=False) as pipeline:
            for arguments in calls:
                scripts.add(pipeline, name, self.prefix, *arguments)
            replies: list[Any] = await pipeline.execute()
        return replies


def _flat(entries: Sequence[Entry]) -> list[scripts.Argument]:
    return [value for entry in entries for value in entry]


def _names(values: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(value.decode() for value in values if value)


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
