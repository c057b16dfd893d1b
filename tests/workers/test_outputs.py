"""What agents yield is checked when it is taken."""

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from tests.turnpool.scripts.kit import MakeTurn, contents, events, record
from tests.workers.conftest import Worker
from turnpool.agent import Event, Finish, StartOver, ToolCall, ToolResult, Turn, Usage
from turnpool.store.store import Store
from turnpool_api.routes.schemas import TurnView

pytestmark = pytest.mark.anyio

Answer = AsyncIterator[str | Event]


def yielding(*items: Any) -> Callable[[Turn], Answer]:
    """An agent that yields these."""

    async def agent(_: Turn) -> Answer:
        for item in items:
            yield item

    return agent


@dataclass
class Index:
    """An integer of another kind, as numpy's."""

    value: int

    def __index__(self) -> int:
        return self.value


BAD: list[tuple[object, str]] = [
    (Usage(1.5, 3), "Usage.input_tokens must be an integer, not float."),  # type: ignore[arg-type]
    (Usage(1, -3), "Usage.output_tokens must be from 0 to"),
    (Usage(input_tokens=True, output_tokens=3), "Usage.input_tokens must be an integer, not bool."),
    (Usage(None, 3), "Usage.input_tokens must be an integer, not NoneType."),  # type: ignore[arg-type]
    (Usage("5", 3), "Usage.input_tokens must be an integer, not str."),  # type: ignore[arg-type]
    (Usage(10**30, 3), "Usage.input_tokens must be from 0 to"),
    (Usage(math.nan, 3), "Usage.input_tokens must be an integer, not float."),  # type: ignore[arg-type]
    (ToolCall(7, "add", {}), "ToolCall.call_id must be a str, not int."),  # type: ignore[arg-type]
    (ToolCall("c", None, {}), "ToolCall.name must be a str, not NoneType."),  # type: ignore[arg-type]
    (ToolCall("", "add", {}), "ToolCall.call_id must not be empty."),
    (ToolCall("c", "a\ud83d", {}), "ToolCall.name has half a surrogate pair"),
    (ToolCall("c", "add", object()), "ToolCall.arguments is no JSON."),
    (ToolCall("c", "add", {"x": math.nan}), "ToolCall.arguments is no JSON."),
    (ToolResult("c", b"hush"), "ToolResult.output is no JSON."),
    (ToolResult("c", "hush\udc4b"), "ToolResult.output is no JSON."),
    (ToolResult("c", 2**70), "ToolResult.output is no JSON."),
    (Finish("tired"), "Finish.reason must be one of stop, length, content_filter, refusal, tool_calls."),
    (Finish(None), "Finish.reason must be one of"),  # type: ignore[arg-type]
    (b"hush", "an agent yields str or an Event, not bytes"),
    (None, "an agent yields str or an Event, not NoneType"),
    (ToolCall, "an agent yields str or an Event, not type"),
]


@pytest.mark.parametrize(("output", "says"), BAD)
async def test_a_bad_output_fails_the_turn_and_can_be_read(
    worker: Worker, store: Store, output: object, says: str
) -> None:
    """With a word on what is wrong, never its value; the turn's list stays readable."""
    assert await worker.run(yielding("a", output)) == "failed"
    turn = await record(store, "s.1")
    assert turn.error is not None
    assert turn.error["code"] == "agent_error"
    assert says in turn.error["message"]
    assert "hush" not in turn.error["message"]
    TurnView.of(turn)
    assert (turn.output, turn.usage) == ("a", None)


async def test_results_of_many_kinds_are_encoded(worker: Worker, store: Store) -> None:
    """Decimals, UUIDs, models: whatever a tool returns."""
    agent = yielding(
        ToolCall("c", "add", {"price": Decimal("1.5")}), ToolResult("c", [UUID(int=1), {2}]), "x"
    )
    assert await worker.run(agent) == "completed"
    call, result = (event for event in await events(store, "s.1") if "call_id" in event)
    assert call["arguments"] == {"price": "1.5"}
    assert result["output"] == [str(UUID(int=1)), [2]]


async def test_a_step_s_result_of_another_kind_is_recorded(worker: Worker, store: Store) -> None:
    """The agent gets what a later attempt would: plain JSON."""

    async def agent(turn: Turn) -> Answer:
        yield str(await turn.step("price", lambda _: Decimal("1.5"), UUID(int=1)))

    assert await worker.run(agent) == "completed"
    assert (await record(store, "s.1")).output == "1.5"


@pytest.mark.parametrize("usage", [Usage(1, 3), Usage(Index(1), Index(3))])  # type: ignore[arg-type]
async def test_usage_is_added_up(worker: Worker, store: Store, usage: Usage) -> None:
    """Integers of other kinds count too."""
    assert await worker.run(yielding(usage, "x", usage)) == "completed"
    assert (await record(store, "s.1")).usage == {"input_tokens": 2, "output_tokens": 6}


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (("x",), "stop"),
        (("x", Finish("length")), "length"),
        ((Finish("content_filter"),), "content_filter"),
        (("x", Finish("length"), StartOver(), "y"), "stop"),
    ],
)
async def test_why_an_answer_ended_is_in_the_turn(
    worker: Worker, store: Store, items: tuple[Any, ...], reason: str
) -> None:
    """In its last event and its record, as the client sees it."""
    assert await worker.run(yielding(*items)) == "completed"
    assert (await events(store, "s.1"))[-1]["finish_reason"] == reason
    assert TurnView.of(await record(store, "s.1")).finish_reason == reason


async def test_a_turn_that_failed_has_no_finish_reason(worker: Worker, store: Store) -> None:
    """It has not finished."""
    assert await worker.run(yielding(Finish("length"), 7)) == "failed"
    assert (await record(store, "s.1")).finish_reason is None


@pytest.mark.parametrize("text", ["", "\n ", None])
async def test_an_answer_without_text_leaves_no_message(
    worker: Worker, store: Store, text: str | None
) -> None:
    """Strict endpoints would refuse every later turn of the session."""
    assert await worker.run(yielding(*([text] if text is not None else []))) == "completed"
    assert await contents(store) == ["hello"]


async def test_messages_are_plain_chat_format(worker: Worker, store: Store, new_turn: MakeTurn) -> None:
    """SDKs refuse what turnpool keeps beside them; empty ones of older turns are left out."""
    assert await worker.run(yielding("hi")) == "completed"
    stored = await store.messages("s", "default")
    assert all("turn_id" in message for message in stored)
    key = "turnpool:{0}:messages:default:s"
    await store.redis.rpush(key, '{"turn_id":"s.0","role":"assistant","content":""}')
    await store.redis.rpush(
        key, '{"turn_id":"s.0","role":"assistant","content":"part","status":"incomplete"}'
    )
    seen: list[Any] = []

    async def agent(turn: Turn) -> Answer:
        seen.extend(turn.messages)
        yield "x"

    await store.submit(new_turn(input=[{"role": "developer", "content": "more"}]))
    await (await worker.next(agent)).run()
    assert seen == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "assistant", "content": "part"},
        {"role": "developer", "content": "more"},
    ]
