"""What an agent is given and what it may yield.

An agent is `async def agent(turn: Turn) -> AsyncIterator[str | Event]`: it yields text as it comes,
and events in between.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

Message = dict[str, Any]
"""`role` (system, user, assistant, tool) and `content`, as in OpenAI's chat format."""

MAX_STEP_BYTES = 1_000_000
"""Largest recorded result of a step; Redis keeps it in memory."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The agent calls a tool; shown to the client as `turn.tool_call`."""

    call_id: str
    name: str
    arguments: Any


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the tool gave; shown to the client as `turn.tool_result`."""

    call_id: str
    output: Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call of the model; those of a turn are added up."""

    input_tokens: int
    output_tokens: int


Event = ToolCall | ToolResult | Usage

Recorder = Callable[[str, bytes], Awaitable[bytes]]


@dataclass(eq=False)
class Turn:
    """One user input and what the agent needs to answer it.

    `messages` is the whole conversation, the new `input` last. `attempt` is 1 at the first try.
    """

    id: str
    session_id: str
    agent: str
    input: list[Message]
    messages: list[Message]
    params: dict[str, Any]
    metadata: dict[str, Any]
    attempt: int
    record: Recorder = field(repr=False)
    recorded: dict[str, bytes] = field(default_factory=dict, repr=False)
    stop: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def cancelled(self) -> bool:
        """Whether the turn should stop. A coroutine is stopped anyway; a thread has to look."""
        return self.stop.is_set()

    async def step(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """Run `function(*args)` once in the life of the turn and return its result, JSON-like.

        A later attempt gets the recorded result instead of running it again. A plain function runs
        in a thread. Raises ValueError for a result over `MAX_STEP_BYTES`, and
        `orjson.JSONEncodeError` for one that is no JSON.
        """
        if name not in self.recorded:
            if inspect.iscoroutinefunction(function):
                result = await function(*args)
            else:
                result = await asyncio.to_thread(function, *args)
            encoded = orjson.dumps(result)
            if len(encoded) > MAX_STEP_BYTES:
                msg = f"step {name!r}: a result of {len(encoded)} bytes, at most {MAX_STEP_BYTES} are kept"
                raise ValueError(msg)
            self.recorded[name] = await self.record(name, encoded)
        return orjson.loads(self.recorded[name])


Agent = Callable[[Turn], AsyncIterator[str | Event]]
