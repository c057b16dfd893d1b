"""What the store takes and gives: frozen, typed, free of Redis."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import orjson

from turnpool.agent import Message
from turnpool.states import Status


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
    priority: int = 5
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
    """A turn as stored. Times are Unix seconds; `usage` and `error` are None where there is none."""

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
    usage: dict[str, int] | None
    error: dict[str, str] | None

    @classmethod
    def from_hash(cls, fields: dict[bytes, bytes]) -> Self:
        """From the turn's hash."""
        text = {name.decode(): value.decode() for name, value in fields.items()}
        code = text.get("error_code")
        return cls(
            id=text["id"],
            session_id=text["session"],
            tenant=text["tenant"],
            queue=text["queue"],
            agent=text["agent"],
            status=Status(text["status"]),
            priority=int(text["priority"]),
            attempt=int(text["attempt"]),
            losses=int(text["losses"]),
            seq=int(text["seq"]),
            input=[orjson.loads(line) for line in text["input"].split("\n") if line],
            params=orjson.loads(text["params"]),
            metadata=orjson.loads(text["metadata"]),
            created_at=int(text["created_at"]) / 1000,
            deadline_at=float(text["deadline_at"]) / 1000,
            started_at=_seconds(text.get("started_at")),
            ended_at=_seconds(text.get("ended_at")),
            worker=text.get("worker") or None,
            output=text.get("output"),
            usage=orjson.loads(text["usage"]) if text.get("usage") else None,
            error={"code": code, "message": text["error_message"]} if code else None,
        )


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
class Reaped:
    """What a look for dead workers found: turns back in the queue, turns ended, queues to wake.

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
    error: tuple[str, str] = ("", "")
    messages: tuple[Message, ...] = ()


def _seconds(milliseconds: str | None) -> float | None:
    return int(milliseconds) / 1000 if milliseconds else None
