"""Frames and the partial text that the scripts make of them (`lua/lib.lua`)."""

import json
import re
from typing import Any

import httpx
import httpx_sse
import pytest
from hypothesis import given, strategies

from tests.turnpool.scripts.kit import MakeTurn, events, lose, record, say, take, write
from turnpool.agent import ToolCall, ToolResult
from turnpool.events import data_of, delta, is_terminal, members, restarted, seq_of, tool, with_id
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio

NASTY = [
    'quotes " and \\ and / and \\" and \\n',
    "line\nends\r\nof\rall\x0bkinds\x0c\x1c\x85\u2028\u2029",
    "id: 9\nevent: turn.completed\ndata: {}\n\n",
    "emoji 👋🏽 👨‍👩‍👧 日本 ü \u0301 \U0010ffff",
    "NUL \0 DEL \x7f ESC \x1b BOM \ufeff",
    "percent %s %1 %% lua ]] \\0",
    " ",
]


@pytest.mark.parametrize("text", NASTY)
async def test_a_frame_is_one_sse_event_and_json_for_any_text(
    store: Store, new_turn: MakeTurn, text: str
) -> None:
    """A standard SSE parser and a standard JSON parser get the very text, in three lines of LF ends."""
    await store.submit(new_turn())
    held = await take(store)
    entries = [delta(text), tool(ToolCall(text, text, {text: text})), tool(ToolResult(text, [text]))]
    await write(store, held, *entries)
    frames = (await store.frames("s.1", "default", 0))[2:]
    for n, frame in enumerate(frames, start=3):
        assert re.fullmatch(rb"id: %d\nevent: [a-z._]+\ndata: [^\r\n]+\n\n" % n, frame)
    parsed = list(
        httpx_sse.EventSource(
            httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b"".join(frames))
        ).iter_sse()
    )
    said, call, result = (json.loads(event.data) for event in parsed)
    assert [event.id for event in parsed] == ["3", "4", "5"]
    assert [event.event for event in parsed] == [said["type"], call["type"], result["type"]]
    assert said["text"] == text
    assert (call["call_id"], call["name"], call["arguments"]) == (text, text, {text: text})
    assert (result["call_id"], result["output"]) == (text, [text])


async def test_a_worker_of_any_name_makes_valid_frames(store: Store, new_turn: MakeTurn) -> None:
    """What the scripts write into JSON themselves is escaped too."""
    await store.submit(new_turn())
    await take(store, 'w"\\/\n\0ü')
    assert (await events(store, "s.1"))[1]["worker"] == 'w"\\/\n\0ü'


@pytest.mark.parametrize("text", NASTY)
async def test_partial_text_survives_the_scripts(store: Store, new_turn: MakeTurn, text: str) -> None:
    """What the scripts gather from the log, and write again as JSON, is what was streamed."""
    await store.submit(new_turn())
    await lose(store, await say(store, await take(store), text, "|", text))
    await store.cancel("s.1", "default")
    assert (await record(store, "s.1")).output == f"{text}|{text}"
    assert (await events(store, "s.1"))[-1]["output"] == f"{text}|{text}"
    assert (await store.messages("s", "default"))[-1]["content"] == f"{text}|{text}"


@pytest.mark.parametrize(
    ("keep", "stands"),
    [
        (0, ""),
        (1, "a"),
        (2, "aü"),
        (3, "aü日"),
        (4, "aü日👋"),
        (5, "aü日👋z"),
        (6, "aü日👋z"),
        (999, "aü日👋z"),
    ],
)
async def test_keep_counts_characters_not_bytes(
    store: Store, new_turn: MakeTurn, keep: int, stands: str
) -> None:
    """After a restart so many characters of the text stand, of one to four bytes each."""
    await store.submit(new_turn())
    held = await say(store, await take(store), "aü", "日👋z")
    held = await write(store, held, restarted("retry", keep), delta("!é"))
    await lose(store, held)
    await store.cancel("s.1", "default")
    assert (await record(store, "s.1")).output == stands + "!é"


async def test_each_restart_counts_from_what_stood(store: Store, new_turn: MakeTurn) -> None:
    """Restarts follow each other, and events of tools are no text."""
    await store.submit(new_turn())
    held = await say(store, await take(store), "öä", "ü")
    held = await write(store, held, restarted("retry", 2), tool(ToolCall("c", "text", {"text": "x"})))
    held = await write(store, held, delta("1"), restarted("retry", 1), delta("2"))
    await lose(store, held)
    await store.cancel("s.1", "default")
    assert (await record(store, "s.1")).output == "ö2"


FIELDS: dict[str, Any] = {"a": [1, None, True, 0.5], "b": {"c": "d"}}


def test_members_are_json_members() -> None:
    """A comma before each, so that they follow those the script writes."""
    assert json.loads(b'{"first":0' + members(**FIELDS) + b"}") == {"first": 0} | FIELDS


@given(strategies.text())
def test_a_delta_is_json_for_any_text(text: str) -> None:
    """What hypothesis thinks of as text goes through unchanged."""
    assert json.loads(b'{"first":0' + delta(text).fields + b"}")["text"] == text


def test_frames_are_read_without_decoding() -> None:
    """Seq, end and data come from the bytes, and text that looks like a frame deceives no one."""
    frame = b'id: 12\nevent: turn.output_text.delta\ndata: {"text":"\\nevent: turn.completed\\n"}\n\n'
    assert (seq_of(frame), is_terminal(frame)) == (12, False)
    assert data_of(frame) == {"text": "\nevent: turn.completed\n"}
    for kind in (b"completed", b"failed", b"cancelled"):
        assert is_terminal(b"id: 3\nevent: turn." + kind + b"\ndata: {}\n\n")
    assert with_id(frame, b"3-12") == b"id: 3-12" + frame[6:]
