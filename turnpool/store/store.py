"""The store: one method per script in `lua/`, and the plain reads in `queries.py`.

Every method raises StoreAwayError while Redis is away. On a cluster, what is done in all partitions is done
in those that answer, and raises if none does.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Self

import orjson

from turnpool import keys
from turnpool.errors import (
    EventsLostError,
    IdempotencyMismatchError,
    LeaseLostError,
    QueueFullError,
    SessionBusyError,
    SessionExistsError,
    SessionFullError,
    SessionNotFoundError,
    StoreAwayError,
    TurnNotFoundError,
)
from turnpool.events import Entry
from turnpool.ids import scoped, unscoped
from turnpool.logs import get_logger
from turnpool.models import Claim, NewTurn, Outcome, Reaped, Submitted, TurnRecord, WorkerInfo
from turnpool.redis.cluster import open_nodes
from turnpool.redis.connections import CONNECTIONS
from turnpool.redis.nodes import Nodes
from turnpool.settings import Durability, Settings
from turnpool.store import scripts
from turnpool.store.appends import append
from turnpool.store.backlog import Backlog, where_to_claim
from turnpool.store.durability import Confirmer
from turnpool.store.isolation import Bench, release
from turnpool.store.queries import StoreQueries

log = get_logger(__name__)

# Times a claim that others were faster than looks for more.
LOOKS = 3
# Seconds between tries of a claim whose answer was lost: several within the lease that it may have got.
CLAIM_PAUSE = 0.2


class Held(NamedTuple):
    """A worker's hold on a turn: its scoped id, which attempt it is, the seq of the last event written."""

    turn_id: str
    attempt: int
    seq: int


class Cancelled(NamedTuple):
    """What a cancel did: `cancelled` at once, `cancelling` by its worker, or had `ended` before."""

    state: str
    woken: tuple[str, ...]


class Store(StoreQueries):
    """Sessions, turns and their events."""

    def __init__(self, nodes: Nodes, settings: Settings) -> None:
        super().__init__(nodes)
        self.settings = settings
        self._backlog = Backlog(nodes)
        self._confirmer = Confirmer(nodes, settings.durability)
        self._lease_ms = int(settings.lease_seconds * 1000)
        self._kept = (settings.session_ttl, settings.log_ttl)

    @classmethod
    def connect(cls, settings: Settings, connections: int = CONNECTIONS) -> Self:
        """A store where the settings name it, with so many connections to each node; none is made yet."""
        return cls(open_nodes(settings.store, settings.namespace, connections), settings)

    async def create_session(self, session_id: str, tenant: str, metadata: dict[str, Any]) -> None:
        """Create a session. Raises SessionExistsError."""
        name = scoped(tenant, session_id)
        data = orjson.dumps(metadata)
        made = await self._run("create_session", self.prefix_of(name), name, tenant, data, *self._kept)
        if not made:
            raise SessionExistsError(session_id)

    async def delete_session(self, session_id: str, tenant: str) -> None:
        """Delete a session and cancel what waits or runs. Raises SessionNotFoundError."""
        name = scoped(tenant, session_id)
        prefix = self.prefix_of(name)
        turn, created = 1, ""
        while turn > 0:
            turn, created = await self._run(
                "delete_session", prefix, name, tenant, *self._kept, turn, created
            )
        if not turn:
            raise SessionNotFoundError(session_id)

    async def submit(self, new: NewTurn) -> Submitted:
        """Accept a turn.

        Raises SessionBusyError, QueueFullError, SessionFullError, IdempotencyMismatchError.
        """
        session_id = scoped(new.tenant, new.session_id)
        prefix = self.prefix_of(session_id)
        reply = await self._run(
            "submit",
            prefix,
            session_id,
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
            keys.wakeups(self.settings.namespace, new.queue),
            new.wake_up,
            await self._backlog.elsewhere(new.queue, prefix),
            self.settings.max_queued,
            self.settings.max_session_queued,
            *self._kept,
        )
        match reply[0]:
            case b"accepted":
                woken = _names(reply[3:])
                turn_id = unscoped(reply[1].decode())
                return Submitted(turn_id, replayed=False, accepted_at=int(reply[2]), woken=woken)
            case b"replayed":
                return Submitted(unscoped(reply[1].decode()), replayed=True)
            case b"session_busy":
                raise SessionBusyError(unscoped(reply[1].decode()))
            case b"session_full":
                raise SessionFullError(new.session_id, new.queue)
            case b"queue_full":
                raise QueueFullError(new.queue)
        raise IdempotencyMismatchError

    async def claim(
        self,
        queue: str,
        worker_id: str,
        continuing: Sequence[str] = (),
        agents: Iterable[str] = (),
        *,
        parked: str = "",
    ) -> tuple[Claim | None, tuple[str, ...]]:
        """Take the best ready turn of the queue, or None; and the queues to wake.

        `continuing`: the agents that go on from the text of an earlier attempt; `agents`: those that the
        worker has, all by default; `parked`: the partition whose parked turn is wanted (`Reaped.parked`).
        When an answer is lost it asks until there is one: the claim may have been carried out, and nobody
        else would run the turn.
        """
        served = ",".join(("", *agents, "")) if agents else ""
        if parked:
            return await self._claim(parked, queue, worker_id, (served, "parked", *continuing))
        woken: tuple[str, ...] = ()
        for _ in range(LOOKS):
            prefixes = await where_to_claim(self.nodes, queue)
            for prefix in prefixes:
                claim, more = await self._claim(prefix, queue, worker_id, (served, "ready", *continuing))
                woken += more
                if claim:
                    return claim, woken
            if len(self.nodes.prefixes) == 1 or not prefixes:
                break
        return None, woken

    async def _claim(
        self, prefix: str, queue: str, worker_id: str, wanted: Sequence[str]
    ) -> tuple[Claim | None, tuple[str, ...]]:
        name = secrets.token_hex(8)
        arguments: tuple[scripts.Argument, ...] = (self._lease_ms, *self._kept, *wanted)
        again = 0
        while True:
            try:
                reply = await self._run("claim", prefix, queue, worker_id, name, again, *arguments)
                break
            except StoreAwayError as error:
                log.warning("claim_reply_lost", queue=queue, error=error.reason)
                again = 1
                await asyncio.sleep(CLAIM_PAUSE)
        fields, messages, steps, woken = reply
        if not fields:
            return None, _names(woken)
        values = _pairs(fields)
        claim = Claim(
            turn=TurnRecord.from_hash(values),
            name=name,
            messages=[orjson.loads(message) for message in messages],
            steps={name.decode(): value for name, value in _pairs(steps).items()},
            remaining_seconds=float(values[b"remaining"]) / 1000,
            restart=values[b"restart"].decode() if b"restart" in values else None,
            partial=values.get(b"partial", b"").decode(),
            traceparent=values.get(b"traceparent", b"").decode(),
        )
        return claim, _names(woken)

    async def append(self, batches: Sequence[tuple[Held, Sequence[Entry]]]) -> list[bool | Exception]:
        """Add events to running turns, one round trip for each node.

        For each turn: whether the attempt holds, or why that is not known, or EventsLostError.
        May be called again with the same batches when the answer was lost; events come once.
        """
        writes = [
            (self.prefix_of_turn(held.turn_id), (*held, 2 * len(entries), *_flat(entries)))
            for held, entries in batches
        ]
        replies = await append(self.nodes, writes)
        return [
            reply if isinstance(reply, Exception) else _written(held.turn_id, reply)
            for (held, _), reply in zip(batches, replies, strict=True)
        ]

    async def settle(self, held: Held, entries: Sequence[Entry], outcome: Outcome) -> tuple[str, ...]:
        """End a turn, its last events first; gives the queues to wake.

        Raises LeaseLostError, EventsLostError.

        May be called again when the answer was lost.
        """
        events = _flat(entries)
        reply = await self._run(
            "settle",
            self.prefix_of_turn(held.turn_id),
            held.turn_id,
            held.attempt,
            held.seq,
            outcome.status,
            outcome.fields,
            outcome.output,
            orjson.dumps(outcome.usage) if outcome.usage else "",
            outcome.finish_reason,
            *outcome.error,
            *self._kept,
            len(events),
            *events,
            *map(orjson.dumps, outcome.messages),
        )
        if not reply[0]:
            raise LeaseLostError(held.turn_id, held.attempt)
        if reply[0] < 0:
            raise EventsLostError(held.turn_id, -reply[0])
        return _names(reply[1:])

    async def hand_back(
        self, held: Held, entries: Sequence[Entry], steps: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Give a running turn to the others, or end it if it is cancelled; gives the queues to wake.

        `steps`: recorded as under way, but not called; the next attempt may call them.

        Raises EventsLostError.
        """
        prefix = self.prefix_of_turn(held.turn_id)
        reply = await self._run("hand_back", prefix, *held, *self._kept, len(steps), *steps, *_flat(entries))
        if isinstance(reply, int):
            raise EventsLostError(held.turn_id, -reply)
        return _names([reply])

    async def renew(self, worker: WorkerInfo, held: Iterable[tuple[str, int]]) -> dict[str, str]:
        """Renew the leases of a worker's turns (scoped id, attempt).

        Gives those to stop: `lost` or `cancelled` by `<scoped id>/<attempt>`.
        """
        turns: dict[str, list[str | int]] = defaultdict(list, {self.prefix: []})
        for turn_id, attempt in held:
            turns[self.prefix_of_turn(turn_id)] += turn_id, attempt
        info = orjson.dumps(asdict(worker))
        calls = [
            (prefix, (worker.id, self._lease_ms, info if prefix == self.prefix else b"", *values))
            for prefix, values in turns.items()
        ]
        stop: dict[str, str] = {}
        for reply in _answered(await scripts.run_many(self.nodes, "renew", calls)):
            stop |= {name.decode(): why.decode() for name, why in _pairs(reply).items()}
        return stop

    async def reap(self, queue: str, agents: Iterable[str] = ()) -> Reaped:
        """Take the turns of dead workers from them, and let suspects run if it is their time.

        `agents`: those of the worker that looks, for what is parked.
        """
        limits = (self._lease_ms, self.settings.max_attempts)
        partitions = len(self.nodes.prefixes)
        replies = await self._everywhere("reap", queue, *limits, *self._kept, partitions, *agents)
        requeued, ended, woken = map(_flatten, _columns(replies, 3))
        found = [Bench.from_reply(figures, place) for *_, figures, place in replies]
        woken += await release(self.nodes, queue, found, self._lease_ms)
        return Reaped(
            requeued, ended, woken, tuple(bench.prefix for bench in found for _ in range(bench.parked))
        )

    async def expire(self, queue: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Fail overdue turns that wait or have no worker left: their scoped ids, and the queues to wake."""
        ended, woken = _columns(await self._everywhere("expire", queue, *self._kept), 2)
        return _flatten(ended), _flatten(woken)

    async def confirm(self, scoped_id: str, **fields: str | int) -> bool:
        """Whether the turn is there and these fields of its hash are so, whatever server dies.

        Waits for that as TURNPOOL_DURABILITY asks; with `none` it is always so. Raises NotDurableError.
        """
        if self.settings.durability is Durability.NONE:
            return True
        prefix = self.prefix_of_turn(scoped_id)
        read = ("HMGET", keys.turn(prefix, scoped_id), "id", *fields)
        found = await self._confirmer.confirm(prefix, *read)
        return bool(found == [str(value).encode() for value in (scoped_id, *fields.values())])

    async def confirm_step(self, scoped_id: str, name: str, recorded: bytes) -> bool:
        """Whether this is recorded of a step and will be; waits as `confirm` does. Raises NotDurableError."""
        if self.settings.durability is Durability.NONE:
            return True
        prefix = self.prefix_of_turn(scoped_id)
        found = await self._confirmer.confirm(prefix, "HGET", keys.steps(prefix, scoped_id), name)
        return bool(found == recorded)

    async def cancel(self, turn_id: str, tenant: str) -> Cancelled:
        """Cancel a turn. Raises TurnNotFoundError."""
        name = scoped(tenant, turn_id)
        reply = await self._run("cancel", self.prefix_of_turn(name), name, *self._kept)
        state = reply[0].decode()
        if state == TurnNotFoundError.code:
            raise TurnNotFoundError(turn_id)
        return Cancelled(state, _names(reply[1:]))

    async def record_step(self, held: Held, name: str, result: bytes | None) -> bytes:
        """Record that a step is under way (empty), or its result; gives the result that is recorded.

        With None nothing is recorded. Raises LeaseLostError.
        """
        prefix = self.prefix_of_turn(held.turn_id)
        recording = () if result is None else (result,)
        recorded = await self._run("record_step", prefix, held.turn_id, held.attempt, name, *recording)
        if recorded is None:
            raise LeaseLostError(held.turn_id, held.attempt)
        return bytes(recorded)

    async def top_up(self, queue: str, listed: int, interval_ms: int) -> int:
        """How many wake-ups to publish, the broker's list holding `listed`; below zero, to take away."""
        prefix = self.nodes.prefix_of(queue)
        elsewhere = 0
        if others := [other for other in self.nodes.prefixes if other != prefix]:
            replies = await scripts.run_many(self.nodes, "ready", [(other, (queue,)) for other in others])
            elsewhere = sum(_answered(replies))
            if any(isinstance(reply, Exception) for reply in replies):
                # What is not known to be ready may be: no wake-up is taken away.
                listed = min(listed, elsewhere)
        return int(await self._run("top_up", prefix, queue, listed, interval_ms, elsewhere))

    async def leave(self, worker_id: str) -> None:
        """Take a worker that ends off the list."""
        p = self.prefix
        await self._read([(p, ("DEL", keys.worker(p, worker_id))), (p, ("ZREM", keys.workers(p), worker_id))])

    async def close(self) -> None:
        """Close the connections."""
        await self.nodes.close()

    async def _run(self, name: str, prefix: str, *arguments: scripts.Argument) -> Any:
        return await scripts.run(self.nodes, name, prefix, *arguments)

    async def _everywhere(self, name: str, *arguments: scripts.Argument) -> list[Any]:
        """What a script answers in each partition."""
        calls = [(prefix, arguments) for prefix in self.nodes.prefixes]
        return _answered(await scripts.run_many(self.nodes, name, calls))


def _written(turn_id: str, reply: int) -> bool | EventsLostError:
    return EventsLostError(turn_id, -reply) if reply < 0 else bool(reply)


def _answered(replies: list[Any]) -> list[Any]:
    """The answers. Raises the first error if there are none, or one that is more than a node being away."""
    errors = [reply for reply in replies if isinstance(reply, Exception)]
    for error in errors:
        if len(errors) == len(replies) or not isinstance(error, StoreAwayError):
            raise error
    if errors:
        log.warning("partitions_away", partitions=len(errors), error=str(errors[0]))
    return [reply for reply in replies if not isinstance(reply, Exception)]


def _columns(rows: list[Any], count: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(count)]


def _flatten(lists: list[list[bytes]]) -> tuple[str, ...]:
    return _names(name for names in lists for name in names)


def _flat(entries: Sequence[Entry]) -> list[scripts.Argument]:
    return [value for entry in entries for value in entry]


def _names(values: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(value.decode() for value in values if value)


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
