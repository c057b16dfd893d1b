"""What an agent is given and what it may yield.

An agent is `async def agent(turn: Turn) -> AsyncIterator[str | Event]`: it yields text as it comes,
and events in between.
"""

import asyncio
import inspect
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from hashlib import sha256
from typing import Any

import orjson

from turnpool.encoding import encode
from turnpool.errors import StepInterruptedError, StepSizeError, StepTypeError
from turnpool.logs import get_logger

log = get_logger(__name__)

Message = dict[str, Any]
"""`role` (system, developer, user, assistant, tool) and `content`, as in OpenAI's chat format."""

MAX_STEP_BYTES = 1_000_000
"""Largest arguments and largest recorded result of a step; Redis keeps results in memory."""

UNDER_WAY = b""
"""What is recorded of a step that runs at most once, until there is a result."""

MAX_TOKENS = 2**53 - 1
"""Largest count of tokens: JavaScript clients read no larger number exactly."""

_CONTINUES = "__turnpool_continues__"
_CHECK = "__turnpool_check__"


class FinishReason(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    TOOL_CALLS = "tool_calls"


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


@dataclass(frozen=True, slots=True)
class Finish:
    """Why the answer ends here, one of `FinishReason`; `stop` where an agent does not say."""

    reason: str


@dataclass(frozen=True, slots=True)
class StartOver:
    """The text so far does not stand; told to the client as `turn.restarted` with `keep` 0.

    For an agent that goes on from `turn.partial` and finds that it cannot.
    """


Event = ToolCall | ToolResult | Usage | Finish | StartOver


@dataclass(frozen=True, slots=True)
class Steps:
    """What was recorded of a turn's steps, and how to record more: `record(key, json)` gives what stands.

    With None instead of JSON it only looks. `locks`: of each step that this attempt has begun; the same
    one asked for twice at once runs once. `raised`: by steps that may run at most once; `marked`: of
    those, what is recorded as under way and not called yet; `begun`: what was called. `tasks`: those
    that run steps now.
    """

    record: Callable[[str, bytes | None], Awaitable[bytes]]
    recorded: dict[str, bytes] = field(default_factory=dict)
    locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    raised: dict[str, BaseException] = field(default_factory=dict)
    marked: set[str] = field(default_factory=set)
    begun: dict[str, object] = field(default_factory=dict)
    tasks: "set[asyncio.Task[Any]]" = field(default_factory=set)

    def begin(self, key: str, name: str) -> None:
        """A step that may run once is called from now on. Raises StepInterruptedError if it may not be."""
        try:
            # Called from threads too: who takes the mark away calls the step, or sees that nobody does.
            self.marked.remove(key)
        except KeyError:
            raise StepInterruptedError(name) from None
        # It may have been marked anew meanwhile, by an agent that gave up waiting for it.
        this = object()
        if self.begun.setdefault(key, this) is not this:
            raise StepInterruptedError(name)
        self.recorded[key] = UNDER_WAY

    def take_back(self) -> list[str]:
        """The steps that are marked and were not called; from now on they are not."""
        keys = []
        with suppress(KeyError):
            while True:
                keys.append(self.marked.pop())
        return keys


@dataclass(eq=False)
class Turn:
    """One user input and what the agent needs to answer it.

    `messages` is the whole conversation in OpenAI's chat format, the new `input` last. `attempt` is 1 at the
    first try.
    `partial` is the text that stands of the tries before this one, empty for an agent that is not
    marked with `continues`: what it yields follows that text.
    """

    id: str
    session_id: str
    agent: str
    input: list[Message]
    messages: list[Message]
    params: dict[str, Any]
    metadata: dict[str, Any]
    attempt: int
    steps: Steps = field(repr=False)
    partial: str = ""
    stop: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def cancelled(self) -> bool:
        """Whether the turn should stop, or this attempt has ended. A coroutine is stopped; a thread looks."""
        return self.stop.is_set()

    async def step(
        self, name: str, function: Callable[..., Any], *args: Any, at_most_once: bool = False
    ) -> Any:
        """Run `function(*args)` once in the life of the turn and return its result, JSON-like.

        A later attempt gets the recorded result instead of running it again; so does whoever asks
        for the same name with the same arguments a second time. A step that was under way when its
        worker died is run again, unless it is `at_most_once`: the turn then fails with
        `step_interrupted`. A plain function runs in a thread, which nothing stops: one that takes long
        looks at `cancelled`. When an attempt ends, the steps that it still runs are cancelled.

        Raises what the function raises, TypeError for arguments or a result that are no JSON, ValueError
        for such over `MAX_STEP_BYTES`, StepInterruptedError.
        """
        key = _step_key(name, args)
        async with self.steps.locks[key]:
            recorded = self.steps.recorded.get(key)
            if recorded == UNDER_WAY:
                raise StepInterruptedError(name, self.steps.raised.get(key))
            if recorded is None:
                recorded = await self._first(key, name, function, args, at_most_once=at_most_once)
            return orjson.loads(recorded)

    async def _first(
        self, key: str, name: str, function: Callable[..., Any], args: tuple[Any, ...], *, at_most_once: bool
    ) -> bytes:
        """Run a step that nothing is known of, and record its result."""
        steps = self.steps
        # If this attempt has lost the turn without knowing, this raises, and no other's step is run again.
        if at_most_once:
            steps.marked.add(key)
        recorded = await steps.record(key, UNDER_WAY if at_most_once else None)
        if not recorded:
            begin = partial(steps.begin, key, name) if at_most_once else None
            running = asyncio.create_task(self._run(key, name, partial(_call, function, args, begin)))
            steps.tasks.add(running)
            running.add_done_callback(steps.tasks.discard)
            recorded = await running
        steps.recorded[key] = recorded
        return recorded

    async def _run(self, key: str, name: str, call: Callable[[], Awaitable[Any]]) -> bytes:
        """Run a step and record its result. A stop that comes in between finds it on its way."""
        try:
            result = _step_json(f"step {name!r}: its result", await call())
        except Exception as error:
            self.steps.raised[key] = error
            raise
        # At once: whoever asks again while it is being recorded, after a time-out of its own, has it.
        self.steps.recorded[key] = result
        return await self.steps.record(key, result)


async def _call(function: Callable[..., Any], args: tuple[Any, ...], begin: Callable[[], None] | None) -> Any:
    def call() -> Any:
        if begin:
            begin()
        return function(*args)

    # A thread may be long in coming.
    result = call() if inspect.iscoroutinefunction(function) else await asyncio.to_thread(call)
    return await result if inspect.isawaitable(result) else result


def _step_key(name: str, args: tuple[Any, ...]) -> str:
    """What a step is recorded under. An LLM that is asked again may call a tool with other arguments."""
    arguments = _step_json(f"step {name!r}: its arguments", args, orjson.OPT_SORT_KEYS)
    return f"{name}:{sha256(arguments).hexdigest()}"


def _step_json(what: str, value: Any, option: int = 0) -> bytes:
    try:
        encoded = encode(value, option)
    except TypeError as error:
        said = f"{what}: {error}"
        raise StepTypeError(said, f"TypeError: {said}") from error
    if len(encoded) > MAX_STEP_BYTES:
        said = f"{what}: {len(encoded)} bytes, at most {MAX_STEP_BYTES} are kept"
        raise StepSizeError(said, f"ValueError: {said}")
    return encoded


Agent = Callable[[Turn], AsyncIterator[str | Event]]


def continues(when: Callable[[], bool] = lambda: True) -> Callable[[Agent], Agent]:
    """Mark an agent that can go on from `turn.partial` and then yields only what follows.

    `when` is asked before each attempt, for agents that can do so with some models only.
    """

    def mark(agent: Agent) -> Agent:
        setattr(agent, _CONTINUES, when)
        return agent

    return mark


def can_continue(agent: Agent) -> bool:
    """Whether the agent would now go on from a partial answer; not if its `when` raises."""
    when: Callable[[], bool] | None = getattr(agent, _CONTINUES, None)
    try:
        return when is not None and when()
    except Exception:
        # It is asked before each claim, also of other agents' turns.
        log.exception("can_continue_failed", agent=getattr(agent, "__name__", repr(agent)))
        return False


def checked(check: Callable[[], None]) -> Callable[[Agent], Agent]:
    """Mark an agent with what is called before its worker starts; it raises SettingsError to refuse."""

    def mark(agent: Agent) -> Agent:
        setattr(agent, _CHECK, check)
        return agent

    return mark


def check(agent: Agent) -> None:
    """Raise SettingsError if the agent cannot work with the settings of this process."""
    if mine := getattr(agent, _CHECK, None):
        mine()
