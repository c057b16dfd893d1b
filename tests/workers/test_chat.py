"""The agent `chat`, against a small provider that speaks HTTP."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.serving import serving
from tests.workers.provider import DONE, END, Provider, answer, chunk, rest, said, turn
from turnpool.agent import Event, Finish, Turn, Usage
from turnpool.errors import InvalidParamsError, ProviderError, SettingsError, TransientProviderError
from turnpool.redaction import redact
from turnpool.settings import AgentSpec
from turnpool_workers.agents import chat, load_agents

pytestmark = pytest.mark.anyio


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
        ("429 Too Many Requests", "Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("429 Too Many Requests", "Wed, 21 Oct 2037 07:28:00 GMT", YEARS),
        ("429 Too Many Requests", "soon", None),
        ("429 Too Many Requests", "nan", None),
        ("429 Too Many Requests", "inf", None),
        ("429 Too Many Requests", "-3", None),
        ("429 Too Many Requests", "0", None),
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
    "no finish_reason": lambda: answer(chunk("half")),
    "a list": lambda: answer(chunk("half"), "data: [1, 2]\n\n", DONE),
    "choices that are none": lambda: answer(chunk("half"), 'data: {"choices": ["x"]}\n\n', DONE),
    "a delta that is none": lambda: answer(chunk("half"), chunk(choices=[{"delta": "x"}]), DONE),
    "text that is none": lambda: answer(chunk("half"), chunk(choices=[{"delta": {"content": [1]}}]), DONE),
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
    await chat._endpoint().provider.close()
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
    assert await said(turn()) == ["Let me look.", *([Finish("tool_calls")] if reason != "stop" else [])]


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
    with pytest.raises(TransientProviderError, match="sent no answer within 120 s"):
        await said(turn())


@pytest.mark.slow
async def test_a_stall_after_the_end_harms_nothing(stalling: Provider) -> None:
    """The answer is whole, though the connection stays open."""
    stalling.answer = answer(chunk("whole") + END, cut=True)
    assert await said(turn()) == ["whole"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["content", "reasoning_content", "reasoning", "tool_calls"])
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


async def bodies(provider: Provider, turn: Turn) -> dict[str, Any]:
    """What the endpoint was sent for a turn."""
    provider.answer = answer(chunk("hi"), DONE)
    await said(turn)
    return provider.requests[-1][2]


async def test_params_win_over_what_the_agent_adds(provider: Provider) -> None:
    """Some endpoints refuse stream_options; the conversation and streaming are the agent's own."""
    assert "stream_options" not in await bodies(provider, turn(stream_options=None))
    sent = await bodies(provider, turn(stream_options={"include_usage": False}, messages=[], stream=False))
    assert sent["stream_options"] == {"include_usage": False}
    assert (sent["stream"], sent["messages"]) == (True, [{"role": "user", "content": "hello"}])
    assert (await bodies(provider, turn(model=None)))["model"] == "small"


@pytest.mark.parametrize(
    "params", [{"model": "other"}, {"model": "big-1"}, {"models": ["small", "big-2"]}, {"model": "small"}]
)
async def test_models_that_the_operator_allows_may_be_named(
    provider: Provider, params: dict[str, Any]
) -> None:
    """By name or by pattern."""
    assert (await bodies(provider, turn(**params))).items() >= params.items()


@pytest.mark.parametrize(
    "params",
    [
        {"model": "huge"},
        {"model": "Big-1"},
        {"model": ["small"]},
        {"model": 7},
        {"models": ["small", "huge"]},
        {"models": "huge"},
        {"fallbacks": [{"model": "huge"}]},
        {"api_base": "http://169.254.169.254/"},
        {"base_url": "http://x"},
        {"api_key": "x"},
        {"extra_headers": {}},
        {"extra_body": {"model": "huge"}},
    ],
)
async def test_clients_choose_no_other_model_or_endpoint(provider: Provider, params: dict[str, Any]) -> None:
    """The turn fails before any request, and names the param."""
    with pytest.raises(
        InvalidParamsError, match=rf"params.{'model' if 'model' in min(params) else min(params)}"
    ):
        await said(turn(**params))
    assert provider.requests == []


@pytest.mark.parametrize(
    ("history", "sent"),
    [
        ([("user", "a"), ("assistant", "")], [("user", "a\n\nhello")]),
        ([("user", "a"), ("assistant", None)], [("user", "a\n\nhello")]),
        ([("user", "a"), ("assistant", " \n")], [("user", "a\n\nhello")]),
        ([("user", "a"), ("user", "b")], [("user", "a\n\nb\n\nhello")]),
        ([("user", "a"), ("assistant", "b")], [("user", "a"), ("assistant", "b"), ("user", "hello")]),
        ([("system", "a")], [("system", "a"), ("user", "hello")]),
        (
            [("user", [{"type": "text", "text": "a"}])],
            [("user", [{"type": "text", "text": "a"}]), ("user", "hello")],
        ),
    ],
)
async def test_no_empty_message_is_sent(
    provider: Provider, history: list[tuple[str, Any]], sent: list[tuple[str, Any]]
) -> None:
    """Strict endpoints refuse empty answers, and users' messages in a row."""
    messages = [{"role": role, "content": content} for role, content in [*history, ("user", "hello")]]
    body = await bodies(provider, turn(messages))
    assert [(message["role"], message["content"]) for message in body["messages"]] == sent


async def test_an_answer_that_is_a_tool_call_is_kept_though_empty(provider: Provider) -> None:
    """Its call says something; the input of the turn itself is sent as posted."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "3"}
    hello = turn([call, result, {"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    hello.input = hello.messages[2:]
    assert (await bodies(provider, hello))["messages"] == hello.messages


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("/v1?api-version=2026-01-01", "POST /v1/chat/completions?api-version=2026-01-01 HTTP/1.1"),
        ("/v1/?a=1&b=%2F", "POST /v1/chat/completions?a=1&b=%2F HTTP/1.1"),
        ("", "POST /chat/completions HTTP/1.1"),
        ("/openai/deployments/gpt%204", "POST /openai/deployments/gpt%204/chat/completions HTTP/1.1"),
    ],
)
async def test_a_base_url_may_have_a_query(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, base: str, line: str
) -> None:
    """It belongs to every request, behind the path."""
    url = chat._endpoint().settings.llm_base_url.removesuffix("/v1")
    monkeypatch.setenv("TURNPOOL_LLM_BASE_URL", url + base)
    await chat._endpoint().provider.close()
    chat._endpoint.cache_clear()
    await bodies(provider, turn())
    assert provider.requests[-1][0] == line


async def test_the_wait_for_the_first_token_is_a_setting(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any answer, and after mere signs of life."""
    monkeypatch.setenv("TURNPOOL_FIRST_TOKEN_SECONDS", "0.2")
    await chat._endpoint().provider.close()
    chat._endpoint.cache_clear()
    provider.pause = 5
    for begin in (b"", answer(": wait\n\n", chunk(""), cut=True)):
        provider.answer, provider.beat = begin, b"" if not begin else rest(": wait\n\n", cut=True)
        with pytest.raises(TransientProviderError, match=r"sent no answer within 0.2 s"):
            await said(turn())


@pytest.mark.slow
async def test_more_than_a_thousand_turns_are_answered_at_once(provider: Provider) -> None:
    """Each has a connection of its own."""
    together, all_here = 1_100, asyncio.Event()

    async def wait_for_all() -> None:
        if len(provider.requests) == together:
            all_here.set()
        await all_here.wait()

    provider.think = wait_for_all
    provider.answer = answer(chunk("hi"), DONE)
    assert await asyncio.gather(*(said(turn()) for _ in range(together))) == [["hi"]] * together


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/v1", "ConnectionRefusedError: .*111"),
        ("http://no-such-host.invalid/v1", "gaierror: "),
        ("https://127.0.0.1:{port}/v1", "SSLError: .*SSL"),
    ],
)
async def test_the_log_says_why_a_connection_failed(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    """What the system said, not that all attempts failed; clients are told less."""
    assert provider.requests == []
    await chat._endpoint().provider.close()
    chat._endpoint.cache_clear()

    async def speak_no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with serving(speak_no_tls) as port:
        monkeypatch.setenv("TURNPOOL_LLM_BASE_URL", url.format(port=port))
        with pytest.raises(TransientProviderError, match=f"cannot be reached: {reason}") as raised:
            await said(turn())
    assert raised.value.unavailable
    assert raised.value.public == "The model's provider cannot be reached."


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9", "SOCKS proxy, which needs the package socksio"),
        ("HTTPS_PROXY", "socks5h://me:hush@127.0.0.1:9", "SOCKS proxy, which needs the package socksio"),
        ("HTTP_PROXY", "ftp://me:hush@h", "a proxy or certificate variable of the environment"),
        ("SSL_CERT_FILE", "/no/such/file", "a proxy or certificate variable of the environment"),
    ],
)
def test_a_proxy_that_cannot_be_used_refuses_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    """When the agent is loaded, not when the first turn fails."""
    chat._endpoint.cache_clear()
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=says) as raised:
        load_agents([AgentSpec(name="chat", target="turnpool_workers.agents.chat:agent", queue="turns")])
    assert "hush" not in redact(raised.value.message)
    chat._endpoint.cache_clear()
