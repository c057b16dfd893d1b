"""What the store takes and gives: frozen, typed, free of Redis."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import orjson

from turnpool.agent import Message
from turnpool.ids import scoped, session_of, tenant_of, unscoped
from turnpool.states import Status

DEFAULT_PRIORITY = 5
# Status of a turn whose record has none.
UNKNOWN = "unknown"
# What clients wrote or agents said, of any size; a list of turns has these fields only if asked.
BODIES = ("input", "output", "params", "metadata")

# What may hold a number. A union of types would be made anew at each look.
NUMERIC = (str, bytes, int, float)


class OnBusy(StrEnum):
    """What becomes of a turn posted to a session that has one that has not ended."""

    QUEUE = "queue"
    REJECT = "reject"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn as it is posted. `weight` is the tenant's share; a key or `traceparent` may be empty.

    `wake_up`: for the broker's list, where that is on the store's server; without it the caller publishes.
    """

    session_id: str
    tenant: str
    queue: str
    agent: str
    input: list[Message]
    deadline_seconds: float
    params: dict[str, Any]
    metadata: dict[str, Any]
    priority: int = DEFAULT_PRIORITY
    weight: float = 1.0
    on_busy: OnBusy = OnBusy.QUEUE
    idempotency_key: str = ""
    body_digest: str = ""
    traceparent: str = ""
    wake_up: bytes = b""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The turn that a post made, or that an earlier post with the same key had made (`replayed`).

    `woken`: the queues that have a ready turn more, one wake-up each. `accepted_at`: ms, of a turn
    that this very post made.
    """

    turn_id: str
    replayed: bool
    accepted_at: int | None = None
    woken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A turn as stored. Times are Unix seconds; `usage` and `error` are None where there is none.

    `id` and `session_id` are the client's; `scoped_id` is the store's.

    `usage` is an open object: a newer release may count more than this one.
    """

    id: str
    session_id: str
    tenant: str
    queue: str
    agent: str
    status: Status
    priority: int
    attempt: int
    losses: int
    seq: int
    input: list[Message]
    params: dict[str, Any]
    metadata: dict[str, Any]
    created_at: float
    deadline_at: float
    started_at: float | None
    ended_at: float | None
    worker: str | None
    output: str | None
    usage: dict[str, Any] | None
    finish_reason: str | None
    error: dict[str, str] | None

    @property
    def scoped_id(self) -> str:
        """The turn's id in the store."""
        return scoped(self.tenant, self.id)

    @classmethod
    def from_hash(cls, fields: dict[bytes, bytes]) -> Self:
        """From the turn's hash, or some of its fields: unknown fields are ignored, missing ones are empty."""
        text = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
        code = text.get("error_code")
        turn_id = unscoped(text.get("id", ""))
        return cls(
            id=turn_id,
            session_id=session_of(turn_id),
            tenant=text.get("tenant", ""),
            queue=text.get("queue", ""),
            agent=text.get("agent", ""),
            status=Status(text.get("status", UNKNOWN)),
            priority=int(_number(text.get("priority"), DEFAULT_PRIORITY)),
            attempt=int(_number(text.get("attempt"))),
            losses=int(_number(text.get("losses"))),
            seq=int(_number(text.get("seq"))),
            input=[_parse(line, {}) for line in text.get("input", "").split("\n") if line],
            params=_parse(text.get("params"), {}),
            metadata=_parse(text.get("metadata"), {}),
            created_at=_number(text.get("created_at")) / 1000,
            deadline_at=_number(text.get("deadline_at")) / 1000,
            started_at=_seconds(text.get("started_at")),
            ended_at=_seconds(text.get("ended_at")),
            worker=text.get("worker") or None,
            output=text.get("output"),
            usage=_parse(text.get("usage"), {}) or None,
            finish_reason=text.get("finish_reason") or None,
            error={"code": code, "message": text.get("error_message", "")} if code else None,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a turn is: its status, and the seq of its last event."""

    status: Status
    seq: int

    @classmethod
    def from_values(cls, status: bytes | None, seq: bytes | None) -> Self:
        """From fields of the turn's hash, either of which may be missing."""
        return cls(Status((status or UNKNOWN.encode()).decode(errors="replace")), int(_number(seq)))


@dataclass(frozen=True, slots=True)
class Claim:
    """A turn that a worker has just been given, with the session's messages before it.

    `remaining_seconds`: until its deadline, by the server's clock. `restart`: why an attempt before
    this one ended, None for the first. `partial`: the text of them that stands. `traceparent`: the
    trace of the request that posted the turn. `name`: of this claim alone, whatever a server forgets.
    """

    turn: TurnRecord
    name: str
    messages: list[Message]
    steps: dict[str, bytes]
    remaining_seconds: float
    restart: str | None = None
    partial: str = ""
    traceparent: str = ""

    @property
    def age_seconds(self) -> float:
        """From accepted to claimed, by the server's clock."""
        return max(self.turn.deadline_at - self.remaining_seconds - self.turn.created_at, 0.0)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session without its messages. `active_turn`: the one that is ready or runs."""

    id: str
    tenant: str
    created_at: float
    metadata: dict[str, Any]
    active_turn: str | None

    @classmethod
    def from_values(
        cls, scoped_id: str, names: Sequence[str], values: Sequence[bytes | None], head: bytes | None
    ) -> Self:
        """From some fields of the session's hash; those that are missing there are empty."""
        fields = dict(zip(names, values, strict=True))
        return cls(
            id=unscoped(scoped_id),
            tenant=tenant_of(scoped_id),
            created_at=_number(fields.get("created_at")) / 1000,
            metadata=_parse(fields.get("metadata"), {}),
            active_turn=unscoped(head.decode()) if head else None,
        )


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself."""

    id: str
    queues: tuple[str, ...]
    slots: int
    running: int
    draining: bool
    agents: tuple[str, ...] = ()
    hung: bool = False

    @classmethod
    def from_json(cls, worker_id: str, stored: bytes | str) -> Self:
        """From a worker's record: unknown members are ignored, missing or unusable ones count as none."""
        record = _parse(stored, {})
        return cls(
            id=worker_id,
            queues=_names(record.get("queues")),
            slots=int(_number(record.get("slots"))),
            running=int(_number(record.get("running"))),
            draining=bool(record.get("draining")),
            agents=_names(record.get("agents")),
            hung=bool(record.get("hung")),
        )


@dataclass(frozen=True, slots=True)
class QueueState:
    """How much waits and runs in a queue. `oldest_wait_seconds` is 0 if nothing waits.

    `ready`: those of the queued that a worker could take now; the others wait behind one of their session,
    for a trial (`suspects`), or for a worker that has their agent (`parked`: turns by agent).
    """

    name: str
    queued: int
    ready: int
    running: int
    oldest_wait_seconds: float
    suspects: int = 0
    parked: dict[str, int] = field(default_factory=dict)

    def unserved(self, workers: Iterable[WorkerInfo]) -> dict[str, int]:
        """Turns by agent that no live worker of the queue has."""
        agents = {agent for worker in workers if self.name in worker.queues for agent in worker.agents}
        return {agent: count for agent, count in self.parked.items() if agent not in agents}


@dataclass(frozen=True, slots=True)
class QueueFlow:
    """How turns pass through a queue. `left`: how many have left it so far, to run or because they ended."""

    queued: int
    running: int
    left: int


@dataclass(frozen=True, slots=True)
class Reaped:
    """What a look for dead workers found: scoped ids of turns back in the queue and ended, queues to wake.

    `parked`: prefixes of partitions, one for each turn that only a worker with its agent may claim there.
    """

    requeued: tuple[str, ...]
    ended: tuple[str, ...]
    woken: tuple[str, ...]
    parked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a turn ended. `messages` go to the session; `fields` are those of the terminal event."""

    status: Status
    fields: bytes
    output: str = ""
    usage: dict[str, int] | None = None
    finish_reason: str = ""
    error: tuple[str, str] = ("", "")
    messages: tuple[Message, ...] = ()


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _seconds(milliseconds: str | None) -> float | None:
    return _number(milliseconds) / 1000 if milliseconds else None


def _number(stored: object, default: float = 0) -> float:
    """A finite number, or the default for anything else."""
    try:
        number = float(stored) if isinstance(stored, NUMERIC) else default
    except ValueError:
        return default
    return number if math.isfinite(number) else default


def _parse(stored: bytes | str | None, default: dict[str, Any]) -> dict[str, Any]:
    """A JSON object, or the default for anything else."""
    try:
        value = orjson.loads(stored) if stored else default
    except orjson.JSONDecodeError:
        return default
    return value if isinstance(value, dict) else default
