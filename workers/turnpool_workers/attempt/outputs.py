"""Outputs of agents, checked when they are taken: what is stored can be read again.

All raise AgentOutputError, which names what is wrong and never its value.
"""

import operator
from typing import Any

from turnpool.agent import MAX_TOKENS, Finish, FinishReason, ToolCall, ToolResult, Usage
from turnpool.errors import AgentOutputError
from turnpool.events import Entry, tool


def entry(event: ToolCall | ToolResult) -> Entry:
    """The event of a tool's call or result."""
    kind = type(event).__name__
    for name in ("call_id", "name") if isinstance(event, ToolCall) else ("call_id",):
        _check_text(f"{kind}.{name}", getattr(event, name))
    try:
        return tool(event)
    # Of a user's own type: its methods may raise anything.
    except Exception as error:
        what = "arguments" if isinstance(event, ToolCall) else "output"
        raise AgentOutputError(
            f"{kind}.{what} is no JSON. Yield texts, numbers, lists, objects, dates or models.",
        ) from error


def add(so_far: dict[str, int] | None, usage: Usage) -> dict[str, int]:
    """The turn's usage with one call of the model more."""
    total = {}
    for name in ("input_tokens", "output_tokens"):
        count = _count(f"Usage.{name}", getattr(usage, name)) + (so_far or {}).get(name, 0)
        total[name] = min(count, MAX_TOKENS)
    return total


def finish_reason(finish: Finish) -> FinishReason:
    """Why the answer ends."""
    try:
        return FinishReason(finish.reason)
    except ValueError:
        raise AgentOutputError(f"Finish.reason must be one of {', '.join(FinishReason)}.") from None


def _count(what: str, value: Any) -> int:
    if isinstance(value, bool):
        raise _wrong_count(what, value)
    try:
        # Other integers too, as numpy's.
        count = operator.index(value)
    except TypeError:
        raise _wrong_count(what, value) from None
    if not 0 <= count <= MAX_TOKENS:
        raise AgentOutputError(f"{what} must be from 0 to {MAX_TOKENS}.")
    return count


def _wrong_count(what: str, value: object) -> AgentOutputError:
    return AgentOutputError(f"{what} must be an integer, not {type(value).__name__}.")


def _check_text(what: str, value: Any) -> None:
    if not isinstance(value, str):
        raise AgentOutputError(f"{what} must be a str, not {type(value).__name__}.")
    if not value:
        raise AgentOutputError(f"{what} must not be empty.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise AgentOutputError(f"{what} has half a surrogate pair, which is no text.") from None
