"""Pieces of a model's answer, read from the JSON that providers send.

Read leniently: members that turnpool does not use may have any value, and the shapes that providers are
known to send in place of OpenAI's are understood (tests/workers/corpus has them).
Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

import json
from typing import Any, NamedTuple

import orjson

from turnpool.agent import MAX_TOKENS, FinishReason, Usage

# Deltas that carry these show that the model works, though they are no text of the answer.
SIGNS_OF_WORK = (
    "tool_calls", "function_call", "reasoning_content", "reasoning", "reasoning_details", "audio",
)  # fmt: skip
TEXT_PARTS = frozenset({"text", "output_text", None})
FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "safety": FinishReason.CONTENT_FILTER,
    "recitation": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}
# The provider says with these that the answer is broken, not that it has ended.
BROKEN_REASONS = frozenset({"error", "abort", "aborted", "insufficient_system_resource"})


class BrokenPieceError(ValueError):
    """JSON that is no piece of an answer."""


class Piece(NamedTuple):
    """What one event adds to the answer.

    `refusal`: text with which the model declines. `works`: the model does something that is no text.
    `finish`: why the answer ended, `broken` if the provider gave it up. `is_whole`: all of it at once.
    """

    text: str = ""
    refusal: str = ""
    works: bool = False
    calls_tool: bool = False
    finish: FinishReason | None = None
    broken: str = ""
    usage: Usage | None = None
    is_whole: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it takes no answer any further."""
        return not (self.text or self.refusal or self.works or self.finish)


def parse(data: bytes) -> Any:
    """The value that the JSON has. Raises ValueError or RecursionError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Takes what orjson does not and providers send: half a surrogate pair, NaN.
        return json.loads(data)


def read_piece(value: Any, *, several: bool) -> Piece:
    """The piece that an event's JSON is. Raises BrokenPieceError.

    `several`: the request asked for more than one answer, of which the first is read.
    """
    if not isinstance(value, dict):
        raise BrokenPieceError(f"not an object, but {type(value).__name__}")
    usage = _usage(value.get("usage"))
    choices = value.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise BrokenPieceError("choices: not a list of objects")
    choice = next((choice for choice in choices if not (several and choice.get("index"))), None)
    if choice is None:
        # Another answer that goes on: the provider is not silent.
        return Piece(works=bool(choices), usage=usage)
    return _read_choice(choice)._replace(usage=usage)


def _read_choice(choice: dict[str, Any]) -> Piece:
    delta, is_whole = choice.get("delta"), False
    if delta is None:
        delta, is_whole = choice.get("message"), "message" in choice
    delta = delta or {}
    if not isinstance(delta, dict):
        raise BrokenPieceError("delta: not an object")
    text, declined = _content(delta.get("content"))
    refusal = delta.get("refusal")
    declined += refusal if isinstance(refusal, str) else ""
    reason = str(choice.get("finish_reason") or "").lower()
    finish = FINISH_REASONS.get(reason, FinishReason.STOP) if reason else None
    calls = bool(delta.get("tool_calls") or delta.get("function_call")) or finish is FinishReason.TOOL_CALLS
    broken = reason if reason in BROKEN_REASONS else ""
    works = any(delta.get(name) for name in SIGNS_OF_WORK) or isinstance(delta.get("content"), list)
    return Piece(text, declined, works, calls, None if broken else finish, broken, is_whole=is_whole)


def _content(content: Any) -> tuple[str, str]:
    """Text of the answer and of a refusal, from a text or a list of parts."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        raise BrokenPieceError("content: neither text nor a list")
    text, refusal = [], []
    for part in content:
        if isinstance(part, str):
            text.append(part)
        elif not isinstance(part, dict):
            raise BrokenPieceError("content: a part that is no object")
        elif part.get("type") in TEXT_PARTS and isinstance(part.get("text"), str):
            text.append(part["text"])
        elif isinstance(part.get("refusal"), str):
            refusal.append(part["refusal"])
    return "".join(text), "".join(refusal)


def _usage(value: Any) -> Usage | None:
    """Counts of tokens; a wrong count is none, since the answer is whole without it."""
    if not isinstance(value, dict):
        return None
    given, made = _count(value.get("prompt_tokens")), _count(value.get("completion_tokens"))
    return None if given is None and made is None else Usage(given or 0, made or 0)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None
