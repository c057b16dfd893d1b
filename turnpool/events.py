r"""The events of a turn's log, and the SSE frames that carry them.

A frame is the bytes that a client gets: `id: <seq>\nevent: <type>\ndata: <json>\n\n`. The scripts
make it once (`lua/lib.lua`); everything after relays it as it is.
"""

from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from turnpool.agent import ToolCall, ToolResult
from turnpool.encoding import encode


class Kind(StrEnum):
    """Types of events."""

    QUEUED = "turn.queued"
    IN_PROGRESS = "turn.in_progress"
    DELTA = "turn.output_text.delta"
    TOOL_CALL = "turn.tool_call"
    TOOL_RESULT = "turn.tool_result"
    RESTARTED = "turn.restarted"
    COMPLETED = "turn.completed"
    FAILED = "turn.failed"
    CANCELLED = "turn.cancelled"


TERMINAL = frozenset({Kind.COMPLETED, Kind.FAILED, Kind.CANCELLED})
_RESTART_LINE = f"event: {Kind.RESTARTED}\n".encode()
_TERMINAL_LINES = tuple(f"event: {kind}\n".encode() for kind in TERMINAL)


class Entry(NamedTuple):
    """An event before it is in the log: its kind, and its own JSON members with a comma before each."""

    kind: Kind
    fields: bytes


def members(**fields: Any) -> bytes:
    """JSON members as the scripts take them: `,"text":"hi"`. Raises TypeError for what is no JSON."""
    return b"," + encode(fields)[1:-1]


def delta(text: str) -> Entry:
    """Some more text of the answer."""
    return Entry(Kind.DELTA, b',"text":' + orjson.dumps(text))


def tool(event: ToolCall | ToolResult) -> Entry:
    """A tool's call or result."""
    if isinstance(event, ToolCall):
        fields = members(call_id=event.call_id, name=event.name, arguments=event.arguments)
        return Entry(Kind.TOOL_CALL, fields)
    return Entry(Kind.TOOL_RESULT, members(call_id=event.call_id, output=event.output))


def restarted(reason: str, keep: int) -> Entry:
    """The answer starts again; `keep` characters of it stand."""
    return Entry(Kind.RESTARTED, members(reason=reason, keep=keep))


def seq_of(frame: bytes) -> int:
    """The event's id."""
    return int(frame[4 : frame.index(b"\n")])


def is_terminal(frame: bytes) -> bool:
    """Whether the frame ends its turn's stream."""
    return frame.startswith(_TERMINAL_LINES, frame.index(b"\n") + 1)


def is_restart(frame: bytes) -> bool:
    """Whether the frame tells how much of the answer stands."""
    return frame.startswith(_RESTART_LINE, frame.index(b"\n") + 1)


def json_of(frame: bytes) -> bytes:
    """The event's data as JSON."""
    return frame[frame.index(b"\ndata: ") + 7 :].rstrip(b"\n")


def data_of(frame: bytes) -> dict[str, Any]:
    """The event's data."""
    data: dict[str, Any] = orjson.loads(json_of(frame))
    return data


def with_id(frame: bytes, cursor: bytes) -> bytes:
    """The frame under another id."""
    return b"id: " + cursor + frame[frame.index(b"\n") :]
