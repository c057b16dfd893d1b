"""The agent `chat` with what providers send in the wild: the shapes in `corpus/`, over HTTP."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workers.provider import Provider, answer, chunk, said, turn
from turnpool.agent import Event, Finish, Usage
from turnpool.errors import ProviderError, TransientProviderError
from turnpool_workers.attempt.log import _whole

pytestmark = pytest.mark.anyio

CORPUS = Path(__file__).parent / "corpus"
Shape = dict[str, Any]


def shapes(name: str) -> list[Any]:
    """The shapes of a file, each under its name."""
    return [pytest.param(shape, id=shape["name"]) for shape in yaml.safe_load((CORPUS / name).read_text())]


def http(shape: Shape, *, size: int) -> bytes:
    """The answer that a shape is, its body in pieces of some bytes."""
    body = shape["body"].encode()
    head = [f"HTTP/1.1 {shape.get('status', 200)} Status", "transfer-encoding: chunked", "connection: close"]
    head += [f"content-type: {shape.get('type', 'text/event-stream')}"]
    head += [f"{name}: {value}" for name, value in shape.get("headers", {}).items()]
    if shape.get("status") == 304:
        return "\r\n".join([head[0], *head[2:], "", ""]).encode()
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return "\r\n".join([*head, "", ""]).encode() + chunks + b"0\r\n\r\n"


async def check(shape: Shape) -> None:
    """Ask the provider, and compare with what the shape expects."""
    items: list[str | Event] = []
    expected = shape.get("error")
    if expected is None:
        await said(turn(), items)
    else:
        with pytest.raises(ProviderError) as raised:
            await said(turn(), items)
        check_error(raised.value, expected)
    text, half = _whole("".join(item for item in items if isinstance(item, str)) or " ")
    assert (text + ("\ufffd" if half else "")).strip(" ") == shape.get("text", "")
    if expected is None:
        usage = [item for item in items if isinstance(item, Usage)]
        assert usage == ([Usage(*shape["usage"])] if "usage" in shape else [])
        finish = next((item.reason for item in items if isinstance(item, Finish)), "stop")
        assert finish == shape.get("finish", "stop")


def check_error(error: ProviderError, expected: Shape) -> None:
    """Whether it may pass, and the provider's words, which are for the log only."""
    assert isinstance(error, TransientProviderError) is expected.get("passes", False), error
    assert re.search(expected["says"], error.message), error.message
    if isinstance(error, TransientProviderError):
        assert (error.unavailable, error.retry_after) == (
            expected.get("unavailable", False),
            expected.get("hint"),
        )


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("shape", [*shapes("streams.yaml"), *shapes("bodies.yaml")])
async def test_an_answer_is_read_as_it_is_meant(provider: Provider, shape: Shape, size: int) -> None:
    """Cut anywhere, it gives the same text, end and usage."""
    provider.answer = http(shape, size=size)
    await check(shape)


@pytest.mark.parametrize("shape", shapes("errors.yaml"))
async def test_an_error_in_a_stream_is_told_from_text(provider: Provider, shape: Shape) -> None:
    """The text before it stands, and one that stays is not asked for again."""
    lines = shape.get("lines") or f"data: {shape['event']}"
    provider.answer = answer(chunk("half"), f"{lines}\n\n", "data: [DONE]\n\n")
    await check({**shape, "text": "half"})


@pytest.mark.parametrize("shape", shapes("statuses.yaml"))
async def test_a_refusal_says_whether_and_when_to_ask_again(provider: Provider, shape: Shape) -> None:
    """Its words are in the message, for the log, and none of them in what clients may see."""
    provider.answer = http(shape, size=1 << 20)
    items: list[str | Event] = []
    with pytest.raises(ProviderError) as raised:
        await said(turn(), items)
    assert items == []
    check_error(raised.value, shape["error"])
    assert re.fullmatch(r"The model's provider answered \d{3}( \([\w.-]+\))?\.", raised.value.public)


async def test_an_event_without_end_is_refused(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fill the worker's memory."""
    monkeypatch.setattr("turnpool_workers.agents.sse.MAX_EVENT_BYTES", 10_000)
    provider.answer = answer(chunk("half"), *(["data: " + "x" * 999] * 11))
    with pytest.raises(ProviderError, match="an event of over 10000 bytes"):
        await said(turn())
    many = [chunk("x" * 900)] * 30
    provider.answer = answer(*many, "data: [DONE]\n\n")
    assert await said(turn()) == ["x" * 900] * 30
