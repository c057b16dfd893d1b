"""How the agent `chat` goes on with an answer that broke off, with endpoints of each kind."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.serving import serving
from tests.workers.provider import DONE, answer, chunk
from turnpool.agent import Event, StartOver, Steps, Turn, can_continue
from turnpool.errors import TransientProviderError
from turnpool_workers.agents import chat, continuing

pytestmark = pytest.mark.anyio

STORY = "Once upon a time there was a model."
COUNT = "Gladly, and slowly: 1, 2, 3, 4, 5, 6, 7, 8, 9"
FRESH = {"Tell": STORY, "Count": "1, 2, 3, 4"}
WHOLE = {"Tell": STORY, "Count": COUNT}


REFUSED = answer('{"error": {"message": "unknown field"}}', status="400 Bad Request")
BUSY = answer('{"error": {"message": "busy"}}', status="503 Unavailable")
WAIT = answer('{"error": {"message": "busy"}}', status="429 Too Many", headers="retry-after: 7\r\n")
SILENCE = b"silence"
FAULTS = {
    "busy": BUSY,
    "cut": answer(chunk(""), cut=True),
    "no answer": b"",
    "no JSON": answer("data: {\n\n", DONE),
}


class Endpoint:
    """An OpenAI-compatible endpoint that goes on with the last message in its own way."""

    def __init__(self) -> None:
        self.kind = "plain"
        # Answers in place of its own: to a plain request, and to one that goes on, by its first word.
        self.plain: bytes | None = None
        self.fails: dict[str, bytes] = {}
        self.requests: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.requests.append(body)
        reply = self._reply(body)
        if reply == SILENCE:
            await reader.read()
        writer.write(reply)
        await writer.drain()

    def _reply(self, body: dict[str, Any]) -> bytes:
        asked, last = body["messages"][0]["content"].split()[0], body["messages"][-1]
        if last["role"] == "user":
            return _streamed(FRESH[asked]) if self.plain is None else self.plain
        if asked in self.fails:
            return self.fails[asked]
        extra = {"continue_final_message", "add_generation_prompt"} & set(body) or {"prefix"} & set(last)
        if self.kind == "strict" and extra:
            return REFUSED
        goes_on = {
            "plain": not extra,
            "repeats": not extra,
            "vllm": body.get("continue_final_message") is True and body.get("add_generation_prompt") is False,
            "prefix": last.get("prefix") is True,
        }
        if not goes_on.get(self.kind, False):
            return _streamed(FRESH[asked])
        whole = WHOLE[asked]
        assert whole.startswith(last["content"])
        return _streamed(whole if self.kind == "repeats" else whole.removeprefix(last["content"]))


def _streamed(text: str) -> bytes:
    return answer(*(chunk(text[i : i + 3]) for i in range(0, len(text), 3)), DONE)


@pytest.fixture
async def endpoint(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Endpoint]:
    """An endpoint, to which the agent's settings point."""
    endpoint = Endpoint()
    async with serving(endpoint.serve) as port:
        monkeypatch.setenv("TURNPOOL_LLM_BASE_URL", f"http://127.0.0.1:{port}/v1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("TURNPOOL_LLM_MODELS", "*")
        chat._endpoint.cache_clear()
        yield endpoint
        await chat._endpoint().provider.close()
        chat._endpoint.cache_clear()


def second(partial: str, **params: Any) -> Turn:
    """A turn at its second attempt."""

    async def record(_: str, result: bytes | None) -> bytes:
        await asyncio.sleep(0)
        return result or b""

    messages = [{"role": "user", "content": "Tell a story."}]
    return Turn("s.1", "s", "chat", messages, messages, params, {}, 2, Steps(record), partial)


async def answered(turn: Turn, items: list[str | Event] | None = None) -> list[str | Event]:
    """What the agent yields, text in one piece; what comes before an error is in the list given."""
    items = [] if items is None else items
    async for item in chat.agent(turn):
        if isinstance(item, str) and items and isinstance(items[-1], str):
            items[-1] += item
        else:
            items.append(item)
    return items


async def said(partial: str, **params: Any) -> list[str | Event]:
    """What the agent yields at the second attempt of a new turn."""
    return await answered(second(partial, **params))


@pytest.mark.parametrize("kind", ["plain", "repeats", "vllm", "prefix", "strict"])
@pytest.mark.parametrize("cut", [1, 10, 17, len(STORY)])
async def test_only_what_follows_is_yielded(endpoint: Endpoint, kind: str, cut: int) -> None:
    """However the endpoint wants to be asked. One that goes on by no way is asked afresh, which is told."""
    endpoint.kind = kind
    goes_on = kind != "strict"
    assert can_continue(chat.agent)
    items = await said(STORY[:cut])
    assert items == ([STORY[cut:]] if STORY[cut:] else []) if goes_on else items == [StartOver(), STORY]
    assert can_continue(chat.agent) is goes_on


async def test_an_endpoint_is_tried_once(endpoint: Endpoint) -> None:
    """Many turns that come over at the same time wait for one answer, and later ones know it."""
    assert await asyncio.gather(*(said(STORY[:9]) for _ in range(5))) == [[STORY[9:]]] * 5
    await said(STORY[:9])
    questions = [request["messages"][0]["content"].split()[0] for request in endpoint.requests]
    assert (questions.count("Count"), questions.count("Tell")) == (3, 6)
    assert {tuple(sorted(request)) for request in endpoint.requests if "stream_options" not in request} == {
        ("messages", "model", "stream"),
        ("add_generation_prompt", "continue_final_message", "messages", "model", "stream"),
    }
    await said(STORY[:9], model="other")
    assert [request["model"] for request in endpoint.requests[-2:]] == ["other"] * 2


@pytest.mark.parametrize("how", [*FAULTS, "silence"])
async def test_a_trial_that_fails_is_made_again_for_other_turns(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """An error that may pass says nothing of the endpoint; this turn starts over, and waits but once."""
    if how == "silence":
        monkeypatch.setattr(continuing, "TRIAL_TIMEOUT", 0.2)
    endpoint.fails = {"Count": FAULTS.get(how, SILENCE)}
    turn = second(STORY[:9])
    assert await answered(turn) == [StartOver(), STORY]
    assert await answered(turn) == [StartOver(), STORY]
    assert len(endpoint.requests) == 3
    assert can_continue(chat.agent)
    endpoint.fails = {}
    assert await said(STORY[:9]) == [STORY[9:]]


async def test_an_answer_that_starts_over_after_all_is_told(endpoint: Endpoint) -> None:
    """An endpoint that repeats what it was given may do otherwise once; no text is repeated silently."""
    endpoint.kind = "repeats"
    assert await said(STORY[:9]) == [STORY[9:]]
    endpoint.kind = "strict"
    assert await said("Long ago") == [StartOver(), STORY]
    assert await said(STORY + " The end.") == [StartOver(), STORY]


@pytest.mark.parametrize(("mode", "goes_on"), [("always", True), ("never", False), ("auto", False)])
async def test_the_setting_decides(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, mode: str, *, goes_on: bool
) -> None:
    """`always` believes that the endpoint goes on whatever it said, `never` does not ask."""
    monkeypatch.setenv("TURNPOOL_CHAT_CONTINUE", mode)
    chat._endpoint.cache_clear()
    endpoint.kind = "strict"
    items = await said(STORY[:9])
    assert items == ([STORY[9:]] if goes_on else [StartOver(), STORY])
    assert can_continue(chat.agent) is goes_on
    asked = any(request["messages"][0] == continuing.QUESTION for request in endpoint.requests)
    assert asked is (mode != "never")


@pytest.mark.parametrize("reply", [REFUSED, *FAULTS.values()], ids=["refused", *FAULTS])
@pytest.mark.parametrize("fresh", [STORY, ""])
async def test_a_continuation_that_fails_starts_over(endpoint: Endpoint, reply: bytes, fresh: str) -> None:
    """Though the trial went well; also where the new answer is empty."""
    endpoint.fails = {"Tell": reply}
    endpoint.plain = _streamed(fresh)
    assert await said(STORY[:9]) == [StartOver(), *([fresh] if fresh else [])]


async def test_a_continuation_that_breaks_off_goes_on_from_there(endpoint: Endpoint) -> None:
    """What came of it is kept for the next try."""
    endpoint.fails = {"Tell": answer(chunk(STORY[9:20]), cut=True)}
    items: list[str | Event] = []
    with pytest.raises(TransientProviderError):
        await answered(second(STORY[:9]), items)
    assert items == [STORY[9:20]]


@pytest.mark.parametrize("asked", ["Count", "Tell"])
async def test_a_provider_that_fails_all_requests_takes_no_text_back(endpoint: Endpoint, asked: str) -> None:
    """What stands is replaced once there is a new answer."""
    endpoint.fails = {asked: BUSY}
    endpoint.plain = BUSY
    items: list[str | Event] = []
    with pytest.raises(TransientProviderError, match="busy"):
        await answered(second(STORY[:9]), items)
    assert items == []


@pytest.mark.parametrize("asked", ["Count", "Tell"])
async def test_a_provider_that_asks_to_wait_is_asked_the_same_again(endpoint: Endpoint, asked: str) -> None:
    """When it says so the text goes on."""
    endpoint.fails = {asked: WAIT}
    turn = second(STORY[:9])
    with pytest.raises(TransientProviderError) as raised:
        await answered(turn)
    assert raised.value.retry_after == 7
    endpoint.fails = {}
    assert await answered(turn) == [STORY[9:]]


async def test_a_turn_that_is_cancelled_leaves_the_trial_to_the_others() -> None:
    """One trial is made for all who wait, whoever came first."""
    ways, asked = continuing.Ways(), 0
    begun, allowed = asyncio.Event(), asyncio.Event()

    async def ask(_: continuing.Body) -> continuing.Answer:
        nonlocal asked
        asked += 1
        begun.set()
        await allowed.wait()
        yield continuing.REST

    first, other = (asyncio.create_task(ways.find(("url", "model", ""), ask, {})) for _ in range(2))
    await begun.wait()
    first.cancel()
    await asyncio.wait({first})
    allowed.set()
    assert await other == continuing.WAYS[0]
    assert (first.cancelled(), asked) == (True, 1)


JSON_PART, JSON_REST = '{"city": "Paris", "', 'country": "France"}'


async def test_the_trial_has_the_turn_s_own_params(endpoint: Endpoint) -> None:
    """They decide how an answer goes on, so each shape is tried once; limits leave room for an answer."""
    json_mode = {"response_format": {"type": "json_object"}, "max_tokens": 1, "stop": ["7"], "temperature": 0}
    assert await said(STORY[:9], **json_mode) == [STORY[9:]]
    trial = next(request for request in endpoint.requests if request["messages"][0] == continuing.QUESTION)
    assert trial["response_format"] == {"type": "json_object"}
    assert (trial["max_tokens"], trial["temperature"], "stop" in trial) == (continuing.TRIAL_TOKENS, 0, False)
    assert endpoint.requests[-1]["max_tokens"] == 1
    tried = len(endpoint.requests)
    await said(STORY[:9], **json_mode, seed=7)
    assert len(endpoint.requests) == tried + 1
    await said(STORY[:9])
    assert len(endpoint.requests) > tried + 2


async def test_an_explicit_flag_is_asked_for_first(endpoint: Endpoint) -> None:
    """An endpoint that has one may, without it, close the message and guess how it goes on."""
    endpoint.kind = "vllm"
    await said(STORY[:9])
    assert [request.get("continue_final_message") for request in endpoint.requests] == [True, True]


@pytest.mark.parametrize(
    ("rest", "items"),
    [
        (JSON_REST, [JSON_REST]),
        (JSON_PART + JSON_REST, [JSON_REST]),
        ('{"city": "London"}', [StartOver(), '{"city": "London"}']),
        ('{"town": "Paris"}', None),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "vllm", "prefix"])
async def test_json_that_begins_again_is_not_glued(
    endpoint: Endpoint, kind: str, rest: str, items: list[str | Event] | None
) -> None:
    """Whatever the trial said: a grammar begins at its beginning, and some models do."""
    endpoint.kind = kind
    endpoint.fails = {"Tell": _streamed(rest)}
    if items is None:
        # In mid-string a brace may follow; nothing shows that this one begins another answer.
        items = [rest]
    assert await said(JSON_PART) == items


async def test_no_more_shapes_are_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose the params."""
    monkeypatch.setattr(continuing, "MAX_KNOWN", 3)
    ways = continuing.Ways()

    async def ask(_: continuing.Body) -> continuing.Answer:
        yield continuing.REST

    for number in range(9):
        await ways.find(("url", "model", str(number)), ask, {})
    assert len(ways._found) == 3
