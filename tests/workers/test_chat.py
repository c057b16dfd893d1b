"""The agent `chat`, against a small provider that speaks HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.serving import serving
from turnpool.agent import Event, Message, Steps, Turn, Usage
from turnpool.errors import ProviderError, TransientProviderError
from workers.agents import chat

pytestmark = pytest.mark.anyio


def chunk(text: str | None = None, **more: Any) -> str:
    """An event of the stream, as OpenAI's."""
    delta = {} if text is None else {"content": text}
    body = {"id": "1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}
    return f"data: {json.dumps(body | more)}\n\n"


END = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
DONE = END + "data: [DONE]\n\n"


def answer(*parts: str, status: str = "200 OK", headers: str = "", cut: bool = False) -> bytes:
    """A whole HTTP answer; cut: the connection ends before the body does."""
    kind = "text/event-stream" if status.startswith("200") else "application/json"
    chunks = [f"{len(part.encode()):x}\r\n{part}\r\n" for part in parts]
    end = "" if cut else "0\r\n\r\n"
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n"
    return (head + headers + "\r\n" + "".join(chunks) + end).encode()


class Clock:
    """Can be put forward, with all timers of the event loop."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self.ahead = 0.0

    def time(self) -> float:
        """As the event loop's own."""
        return self._time() + self.ahead

    async def pass_by(self, seconds: int) -> None:
        """One by one, so that whoever is a few rounds late waits hardly less."""
        for _ in range(seconds):
            self.ahead += 1
            await asyncio.sleep(0)


@dataclass
class Provider:
    """Answers every request alike, and notes it."""

    answer: bytes = b""
    # What follows after the pause, seconds.
    rest: bytes = b""
    pause: float = 0
    # What comes in between, ten times.
    beat: bytes = b""
    # What it does before it answers.
    think: Callable[[], Awaitable[None]] | None = None
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((head[0], headers, json.loads(body)))
        if self.think:
            await self.think()
        writer.write(self.answer)
        await writer.drain()
        # Who has heard enough goes away.
        with suppress(ConnectionError):
            for _ in range(10):
                await asyncio.sleep(self.pause / 10)
                writer.write(self.beat)
                await writer.drain()
            writer.write(self.rest)


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    """A provider, to which the agent's settings point."""
    provider = Provider()
    async with serving(provider.serve) as port:
        monkeypatch.setenv("TURNPOOL_LLM_BASE_URL", f"http://127.0.0.1:{port}/v1")
        monkeypatch.setenv("TURNPOOL_LLM_MODEL", "small")
        monkeypatch.setenv("TURNPOOL_LLM_API_KEY", "hush")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        chat._endpoint.cache_clear()
        yield provider
        await chat._endpoint().client.close()
        chat._endpoint.cache_clear()


def turn(messages: list[Message] | None = None, **params: Any) -> Turn:
    """A turn of a conversation."""
    messages = messages or [{"role": "user", "content": "hello"}]

    async def record(_: str, result: bytes | None) -> bytes:
        await asyncio.sleep(0)
        return result or b""

    return Turn("s.1", "s", "chat", messages[-1:], messages, params, {}, 1, Steps(record))


async def said(turn: Turn, items: list[str | Event] | None = None) -> list[str | Event]:
    """All that the agent yields; what comes before an error is in the list given."""
    items = [] if items is None else items
    async for item in chat.agent(turn):
        items.append(item)
    return items


async def test_the_text_is_passed_on_as_it_comes(provider: Provider) -> None:
    """Each piece of text is yielded, then the usage; events without text are passed over."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    provider.answer = answer(
        ": a comment\n\n",
        chunk(""),
        chunk("Grüße 👋"),
        chunk(None),
        chunk('a "quote"\n'),
        chunk(choices=[], usage=usage),
        DONE,
    )
    assert await said(turn()) == ["Grüße 👋", 'a "quote"\n', Usage(5, 2)]


async def test_usage_that_comes_with_each_chunk_is_of_the_answer_so_far(provider: Provider) -> None:
    """Running totals are not added up: the last one counts, once."""
    first, second, end, last = ({"prompt_tokens": 5, "completion_tokens": number} for number in range(4))
    stop = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    provider.answer = answer(
        chunk("a", usage=first),
        chunk("b", usage=second),
        chunk(choices=stop, usage=end),
        chunk(choices=[], usage=last),
    )
    assert await said(turn()) == ["a", "b", Usage(5, 3)]


async def test_of_several_answers_the_first_is_read(provider: Provider) -> None:
    """`n` in the params asks for more; their texts and ends are not mixed into it."""
    first, second = (
        [{"index": index, "delta": {"content": text}} for index, text in pair]
        for pair in ([(1, "no"), (0, "yes")], [(0, ", yes"), (1, ", no")])
    )
    other = [{"index": 1, "delta": {"content": "."}, "finish_reason": "stop"}]
    provider.answer = answer(
        chunk(choices=first), chunk(choices=second), chunk(choices=other), chunk("!"), DONE
    )
    assert await said(turn(n=2)) == ["yes", ", yes", "!"]
    provider.answer = answer(chunk(choices=first), chunk(choices=other))
    with pytest.raises(TransientProviderError, match="without a finish_reason"):
        await said(turn(n=2))


async def test_the_request_is_what_the_endpoint_expects(provider: Provider) -> None:
    """The conversation without our own fields, params as they are, streaming with usage."""
    provider.answer = answer(chunk("hi"), DONE)
    messages = [
        {"turn_id": "s.1", "role": "user", "content": "a"},
        {"turn_id": "s.1", "role": "assistant", "content": "b", "status": "incomplete"},
        {"role": "user", "content": "c", "name": "n"},
    ]
    await said(turn(messages, temperature=0.5, stream=False, model="other"))
    line, headers, body = provider.requests[0]
    assert line == "POST /v1/chat/completions HTTP/1.1"
    assert headers["authorization"] == "Bearer hush"
    assert body == {
        "model": "other",
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c", "name": "n"},
        ],
    }
    await said(turn())
    assert provider.requests[1][2]["model"] == "small"


# Until a date that some of the answers give.
YEARS = pytest.approx(datetime(2037, 10, 21, 7, 28, tzinfo=UTC).timestamp() - time.time(), abs=600)


@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [
        ("429 Too Many Requests", "7", 7.0),
        ("429 Too Many Requests", "0.5", 0.5),
        ("429 Too Many Requests", "Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("429 Too Many Requests", "Wed, 21 Oct 2037 07:28:00 GMT", YEARS),
        ("429 Too Many Requests", "soon", None),
        ("429 Too Many Requests", "nan", None),
        ("429 Too Many Requests", "inf", None),
        ("429 Too Many Requests", "-3", None),
        ("429 Too Many Requests", "1 Jan 99999999999999999999 00:00:00 GMT", None),
        ("429 Too Many Requests", None, None),
        ("500 Internal Server Error", None, None),
        ("503 Service Unavailable", "2", 2.0),
        ("408 Request Timeout", None, None),
    ],
)
async def test_errors_that_may_pass(
    provider: Provider, status: str, retry_after: str | None, seconds: float | None
) -> None:
    """Too many requests and errors of the server are tried again, when the provider asks to."""
    headers = f"retry-after: {retry_after}\r\n" if retry_after else ""
    provider.answer = answer('{"error": {"message": "busy"}}', status=status, headers=headers)
    with pytest.raises(TransientProviderError, match=f"answered {status[:3]}: .*busy") as raised:
        await said(turn())
    assert raised.value.retry_after == seconds
    assert len(provider.requests) == 1


@pytest.mark.parametrize("status", ["401 Unauthorized", "400 Bad Request", "404 Not Found"])
async def test_errors_that_will_not_pass(provider: Provider, status: str) -> None:
    """A wrong key or request is not tried again, and the provider's words are told."""
    provider.answer = answer('{"error": {"message": "no such model"}}', status=status)
    with pytest.raises(ProviderError, match=f"answered {status[:3]}: .*no such model") as raised:
        await said(turn())
    assert not isinstance(raised.value, TransientProviderError)
    assert "hush" not in raised.value.message


BROKEN: dict[str, Callable[[], bytes]] = {
    "no finish_reason": lambda: answer(chunk("half"), "data: [DONE]\n\n"),
    "a list": lambda: answer(chunk("half"), "data: [1, 2]\n\n", DONE),
    "choices that are none": lambda: answer(chunk("half"), 'data: {"choices": ["x"]}\n\n', DONE),
    "a delta that is none": lambda: answer(chunk("half"), chunk(choices=[{"delta": "x"}]), DONE),
    "text that is none": lambda: answer(chunk("half"), chunk(choices=[{"delta": {"content": [1]}}]), DONE),
    "usage that is none": lambda: answer(chunk("half"), chunk(usage={"prompt_tokens": "many"}), DONE),
    "cut": lambda: answer(chunk("half"), cut=True),
    "error event": lambda: answer(chunk("half"), 'data: {"error": {"message": "overloaded"}}\n\n', DONE),
    "no JSON": lambda: answer(chunk("half"), 'data: {"choices": \n\n', DONE),
    "no UTF-8": lambda: answer(chunk("half"), chunk("?"), DONE).replace(b"?", b"\xff"),
    "too deep": lambda: answer(chunk("half"), f"data: {'[' * 100_000}\n\n", DONE),
    "a number too long": lambda: answer(chunk("half"), chunk(created=0).replace(": 0}", f": {'1' * 5000}}}")),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_stream_that_breaks_may_be_tried_again(provider: Provider, how: str) -> None:
    """What came before the break is yielded, then the error that may pass."""
    provider.answer = BROKEN[how]()
    items: list[str | Event] = []
    with pytest.raises(TransientProviderError):
        await said(turn(), items)
    assert items == ["half"]


@pytest.mark.parametrize("how", BROKEN)
async def test_what_breaks_after_the_end_harms_nothing(provider: Provider, how: str) -> None:
    """With its finish_reason the answer is whole."""
    half, end = (f"{len(part):x}\r\n{part}\r\n".encode() for part in (chunk("half"), chunk("whole") + END))
    provider.answer = BROKEN[how]().replace(half, end)
    assert await said(turn()) == ["whole"]


async def test_a_provider_that_is_not_there_may_come_back(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection is tried again later."""
    assert provider.requests == []
    await chat._endpoint().client.close()
    monkeypatch.setenv("TURNPOOL_LLM_BASE_URL", "http://127.0.0.1:1/v1")
    chat._endpoint.cache_clear()
    with pytest.raises(TransientProviderError, match="cannot be reached"):
        await said(turn())


async def test_a_cancelled_turn_closes_its_connection(provider: Provider) -> None:
    """The provider need not go on answering a turn that nobody wants any more."""
    provider.answer = answer(chunk("half"), cut=True)
    answering = chat.agent(turn())
    assert await anext(answering) == "half"
    await answering.aclose()  # type: ignore[attr-defined]
    with pytest.raises(StopAsyncIteration):
        await anext(answering)


CALL = {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "look", "arguments": "{}"}}]}


@pytest.mark.parametrize(
    ("delta", "reason"), [(CALL, "tool_calls"), (CALL, "stop"), ({}, "tool_calls"), ({}, "function_call")]
)
async def test_an_answer_that_is_a_tool_call_is_an_error(
    provider: Provider, delta: dict[str, Any], reason: str
) -> None:
    """It would be empty, and nobody would run the tool. Where there is text, that is the answer."""
    call = chunk(choices=[{"index": 0, "delta": delta}])
    end = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])
    provider.answer = answer(call, end)
    with pytest.raises(ProviderError, match="runs none: leave `tools` out of params") as raised:
        await said(turn())
    assert not isinstance(raised.value, TransientProviderError)
    provider.answer = answer(chunk("Let me look."), call, end)
    assert await said(turn()) == ["Let me look."]


def rest(*parts: str, cut: bool = False) -> bytes:
    """What follows of an answer."""
    return answer(*parts, cut=cut).partition(b"\r\n\r\n")[2]


@pytest.fixture
def stalling(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """A provider that is silent for longer than the settings allow."""
    monkeypatch.setenv("TURNPOOL_STALL_SECONDS", "0.3")
    chat._endpoint.cache_clear()
    provider.pause = 0.6
    return provider


@pytest.mark.slow
@pytest.mark.parametrize("beat", ["", chunk("")])
async def test_a_stall_in_mid_answer_may_be_tried_again(stalling: Provider, beat: str) -> None:
    """What came before is yielded. Empty chunks are silence; what is before the first token is no stall."""
    stalling.beat = rest(beat, cut=True) if beat else b""
    stalling.answer = answer(chunk(""), chunk(None), cut=True)
    stalling.rest = rest(chunk("slow"), chunk(" start"), DONE)
    assert await said(turn()) == ["slow", " start"]
    stalling.answer = answer(chunk("half"), cut=True)
    items: list[str | Event] = []
    with pytest.raises(TransientProviderError, match=r"silent for 0.3 s"):
        await said(turn(), items)
    assert items == ["half"]


async def test_a_first_token_may_come_late(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy providers let requests wait, large models read long conversations; a minute is borne."""
    loop = asyncio.get_running_loop()
    clock = Clock(loop.time)
    monkeypatch.setattr(loop, "time", clock.time)
    provider.think = lambda: clock.pass_by(60)
    provider.answer = answer(chunk("late"), DONE)
    assert await said(turn()) == ["late"]
    provider.think = lambda: clock.pass_by(150)
    with pytest.raises(TransientProviderError, match="cannot be reached: Request timed out"):
        await said(turn())


@pytest.mark.slow
async def test_a_stall_after_the_end_harms_nothing(stalling: Provider) -> None:
    """The answer is whole, though the connection stays open."""
    stalling.answer = answer(chunk("whole") + END, cut=True)
    assert await said(turn()) == ["whole"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning", "refusal", "tool_calls"])
async def test_a_model_that_works_does_not_stall(stalling: Provider, name: str) -> None:
    """It may think or call tools in mid-answer."""
    value = [{"index": 0}] if name == "tool_calls" else "x"
    stalling.answer = answer(chunk("half"), cut=True)
    stalling.beat = rest(chunk(choices=[{"delta": {name: value}}]), cut=True)
    stalling.rest = rest(chunk("whole"), DONE)
    items = await said(turn())
    assert (items[0], items[-1]) == ("half", "whole")


@pytest.mark.slow
async def test_the_time_of_a_slow_reader_is_no_stall(stalling: Provider) -> None:
    """A worker whose Redis is away reads late what came in time."""
    stalling.answer = answer(chunk("half"), chunk(""), cut=True)
    stalling.rest = rest(chunk("whole"), DONE)
    answering = chat.agent(turn())
    assert await anext(answering) == "half"
    await asyncio.sleep(0.45)
    assert [item async for item in answering] == ["whole"]
