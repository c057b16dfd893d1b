"""What the API takes and gives, checked by pydantic."""

import json
from itertools import islice
from typing import Annotated, Any, Literal, Self, TypeVar

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
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails

from turnpool.agent import Message
from turnpool.models import OnBusy, QueueState, SessionRecord, TurnRecord, WorkerInfo
from turnpool.states import Status

SESSION_ID = r"^[A-Za-z0-9_-]{1,128}$"
SessionId = Annotated[str, StringConstraints(pattern=SESSION_ID)]
TurnId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}\.[1-9][0-9]{0,14}$")]


T = TypeVar("T")

# Messages of one input.
MAX_MESSAGES = 10_000
# Unknown fields that an error names.
MAX_ERRORS = 20
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


# Checks stop at the first wrong item: a body of a megabyte can have 300,000 of them, and to make an error of
# each would take seconds.
Items = Annotated[list[T], Field(fail_fast=True)]


class Body(BaseModel):
    """A request body: a field that is not known is an error.

    pydantic's own `extra="forbid"` makes an error of each of them, however many there are.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})

    @model_validator(mode="after")
    def _forbid_extra(self) -> Self:
        if self.model_extra:
            errors = [
                InitErrorDetails(type="extra_forbidden", loc=(name,), input=None)
                for name in islice(self.model_extra, MAX_ERRORS)
            ]
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self


class InputMessage(BaseModel):
    """A message of the input, in OpenAI's chat format; more members are passed on."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Items[dict[str, Any]] | None = None


def _all_storable(messages: list[InputMessage]) -> list[InputMessage]:
    # All at once: one by one, 60,000 small messages would take half a second.
    _storable({"messages": [message.model_dump() for message in messages]})
    return messages


# The choice by type makes an error name the message that is wrong, not that it is no text.
Input = Annotated[
    Annotated[str, Field(min_length=1), Tag("text")]
    | Annotated[
        Items[InputMessage],
        Field(min_length=1, max_length=MAX_MESSAGES),
        AfterValidator(_all_storable),
        Tag("messages"),
    ],
    Discriminator(lambda value: "text" if isinstance(value, str) else "messages"),
]


class TurnRequest(Body):
    """A turn to post."""

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


class SessionRequest(Body):
    """A session to create; an id is made up if there is none."""

    id: SessionId | None = None
    metadata: JsonObject = {}


class ChatRequest(Body):
    """A message of POST /chat."""

    message: Annotated[str, Field(min_length=1)]


class ChatResponse(BaseModel):
    """The answer of POST /chat."""

    response: str


class TurnSummary(BaseModel):
    """A turn without its bodies. Times are Unix seconds.

    Other statuses may be added; a turn with an unknown one has not ended.
    """

    id: str
    session_id: str
    status: Status
    agent: str
    queue: str
    priority: int
    attempt: int
    created_at: float
    deadline_at: float
    started_at: float | None
    ended_at: float | None
    usage: dict[str, Any] | None
    finish_reason: str | None
    error: dict[str, str] | None

    @classmethod
    def of(cls, turn: TurnRecord) -> Self:
        """A stored turn as its tenant sees it."""
        return cls.model_validate(turn, from_attributes=True)


class TurnView(TurnSummary):
    """A turn. Times are Unix seconds.

    Other statuses may be added; a turn with an unknown one has not ended.
    """

    input: list[Message]
    params: dict[str, Any]
    metadata: dict[str, Any]
    output: str | None


class ListedTurn(TurnSummary):
    """A turn in a list. `input`, `output`, `params` and `metadata` are there if `include` names them."""

    input: list[Message] = []
    params: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    output: str | None = None


class TurnList(BaseModel):
    """Turns of a session, newest first; `next_cursor` for the next page."""

    turns: list[ListedTurn]
    next_cursor: str | None


class SessionSummary(BaseModel):
    """A session. `active_turn`: the one that waits first or runs."""

    id: str
    created_at: float
    active_turn: str | None

    @classmethod
    def of(cls, session: SessionRecord) -> Self:
        """A stored session as its tenant sees it."""
        return cls.model_validate(session, from_attributes=True)


class SessionView(SessionSummary):
    """A session with its metadata."""

    metadata: dict[str, Any]


class SessionDetail(SessionView):
    """A session with some of its messages; `next_cursor` for those that follow, null after the last."""

    messages: list[Message]
    next_cursor: str | None


class ListedSession(SessionSummary):
    """A session in a list. `metadata` is there if `include` names it."""

    metadata: dict[str, Any] = {}


class SessionList(BaseModel):
    """Sessions, the one last used first; `next_cursor` for the next page."""

    sessions: list[ListedSession]
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
    """Some of a turn's log so far.

    `next_cursor`: `after` of the next page; null if this one is empty, or ends with the turn's end.
    """

    events: list[dict[str, Any]]
    next_cursor: str | None


def as_json(view: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A view as a response whose status and headers the route chooses."""
    return Response(view.model_dump_json(), status, headers, media_type="application/json")


def stored_json(answer: dict[str, Any]) -> Response:
    """An answer with stored JSON in it (`orjson.Fragment`), which is passed on without being parsed."""
    return Response(orjson.dumps(answer), media_type="application/json")
