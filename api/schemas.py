"""What the API takes and gives, checked by pydantic."""

import json
from typing import Annotated, Any, Literal, Self

import orjson
from fastapi import Response
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from turnpool.agent import Message
from turnpool.models import OnBusy, QueueState, SessionRecord, TurnRecord, WorkerInfo
from turnpool.states import Status

SESSION_ID = r"^[A-Za-z0-9_-]{1,128}$"
SessionId = Annotated[str, StringConstraints(pattern=SESSION_ID)]
TurnId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}\.[1-9][0-9]{0,14}$")]


# Members of a stored message that turnpool adds.
OURS = {"turn_id", "status"}


def _storable(value: dict[str, Any]) -> dict[str, Any]:
    """JSON that orjson takes: no half surrogate pair, no integer over 64 bits, no nest without bottom."""
    try:
        # orjson writes NaN and the infinities as null.
        if b"null" in orjson.dumps(value):
            json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"cannot be stored: {error}"
        raise ValueError(msg) from None
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_storable)]


class InputMessage(BaseModel):
    """A message of the input, in OpenAI's chat format; more members are passed on."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _storable(self.model_dump())
        return self


# The choice by type makes an error name the message that is wrong, not that it is no text.
Input = Annotated[
    Annotated[str, Field(min_length=1), Tag("text")]
    | Annotated[list[InputMessage], Field(min_length=1), Tag("messages")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "messages"),
]


class TurnRequest(BaseModel):
    """A turn to post."""

    model_config = ConfigDict(extra="forbid")

    input: Input
    agent: str | None = None
    params: JsonObject = {}
    metadata: JsonObject = {}
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    on_busy: OnBusy = OnBusy.QUEUE
    deadline_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None

    def messages(self) -> list[Message]:
        """The input as messages."""
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        # What the store itself says of a message is not for clients to say.
        return [message.model_dump(exclude_unset=True, exclude=OURS) for message in self.input]


class SessionRequest(BaseModel):
    """A session to create; an id is made up if there is none."""

    model_config = ConfigDict(extra="forbid")

    id: SessionId | None = None
    metadata: JsonObject = {}


class ChatRequest(BaseModel):
    """A message of POST /chat."""

    model_config = ConfigDict(extra="forbid")

    message: Annotated[str, Field(min_length=1)]


class ChatResponse(BaseModel):
    """The answer of POST /chat."""

    response: str


class TurnView(BaseModel):
    """A turn. Times are Unix seconds."""

    id: str
    session_id: str
    status: Status
    agent: str
    queue: str
    priority: int
    attempt: int
    input: list[Message]
    params: dict[str, Any]
    metadata: dict[str, Any]
    created_at: float
    deadline_at: float
    started_at: float | None
    ended_at: float | None
    output: str | None
    usage: dict[str, int] | None
    error: dict[str, str] | None

    @classmethod
    def of(cls, turn: TurnRecord) -> Self:
        """A stored turn as its tenant sees it."""
        return cls.model_validate(turn, from_attributes=True)


class TurnList(BaseModel):
    """Turns of a session, newest first; `next_cursor` for the next page."""

    turns: list[TurnView]
    next_cursor: str | None


class SessionView(BaseModel):
    """A session. `active_turn`: the one that waits first or runs."""

    id: str
    created_at: float
    metadata: dict[str, Any]
    active_turn: str | None

    @classmethod
    def of(cls, session: SessionRecord) -> Self:
        """A stored session as its tenant sees it."""
        return cls.model_validate(session, from_attributes=True)


class SessionDetail(SessionView):
    """A session with its messages, oldest first."""

    messages: list[Message]


class SessionList(BaseModel):
    """Sessions, the one last used first; `next_cursor` for the next page."""

    sessions: list[SessionView]
    next_cursor: str | None


class QueueView(BaseModel):
    """A queue.

    `ready`: turns that a worker could take now; `suspects`: those that wait for a trial, having lost
    several workers; `unserved`: turns, by agent, whose agent no live worker has.
    """

    name: str
    queued: int
    ready: int
    running: int
    oldest_wait_seconds: float
    suspects: int
    unserved: dict[str, int]

    @classmethod
    def of(cls, queue: QueueState, workers: list[WorkerInfo]) -> Self:
        """A queue's state, with what its workers lack."""
        fields = {name: getattr(queue, name) for name in cls.model_fields if name != "unserved"}
        return cls(**fields, unserved=queue.unserved(workers))


class PoolView(BaseModel):
    """The state of the pool: all queues together, each queue, each worker."""

    queued: int
    running: int
    oldest_wait_seconds: float
    queues: list[QueueView]
    workers: list[WorkerInfo]


class EventList(BaseModel):
    """The log of a turn so far."""

    events: list[dict[str, Any]]


def as_json(view: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A view as a response whose status and headers the route chooses."""
    return Response(view.model_dump_json(), status, headers, media_type="application/json")
