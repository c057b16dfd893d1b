"""How the agent `chat` goes on with an answer that broke off, with endpoints of each kind."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.workers.test_chat import DONE, answer, chunk
from turnpool.agent import Event, StartOver, Steps, Turn, can_continue
from turnpool.errors import ProviderError, TransientProviderError
from workers.agents import chat, continuing

pytestmark = pytest.mark.anyio

STORY = "Once upon a time there was a model."
COUNT = "Gladly, and slowly: 1, 2, 3, 4, 5, 6, 7, 8, 9"
FRESH = {"Tell": STORY, "Count": "1, 2, 3, 4"}
WHOLE = {"Tell": STORY, "Count": COUNT}


class Endpoint:
    """An OpenAI-compatible endpoint that goes on with the last message in its own way."""

    def __init__(self) -> None:
        self.kind = "plain"
        self.requests: list[dict[str, Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        self.requests.append(body)
        writer.write(self._reply(body))
        await writer.drain()
        writer.close()

    def _reply(self, body: dict[str, Any]) -> bytes:
        asked, last = body["messages"][0]["content"].split()[0], body["messages"][-1]
        if last["role"] == "user":
            return _streamed(FRESH[asked])
        if self.kind == "busy":
            return answer('{"error": {"message": "busy"}}', status="503 Unavailable")
        extra = {"continue_final_message", "add_generation_prompt"} & set(body) or {"prefix"} & set(last)
        if self.kind == "strict" and extra:
            return answer('{"error": {"message": "unknown field"}}', status="400 Bad Request")
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
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("TURNPOOL_LLM_BASE_URL", f"http://127.0.0.1:{port}/v1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    chat._endpoint.cache_clear()
    yield endpoint
    await chat._endpoint().client.close()
    chat._endpoint.cache_clear()
    server.close()
    await server.wait_closed()


async def said(partial: str, **params: Any) -> list[str | Event]:
    """What the agent yields at its second attempt, text in one piece."""

    async def record(_: str, result: bytes | None) -> bytes:
        await asyncio.sleep(0)
        return result or b""

    messages = [{"role": "user", "content": "Tell a story."}]
    turn = Turn("s.1", "s", "chat", messages, messages, params, {}, 2, Steps(record), partial)
    items: list[str | Event] = []
    async for item in chat.agent(turn):
        if isinstance(item, str) and items and isinstance(items[-1], str):
            items[-1] += item
        else:
            items.append(item)
    return items


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
    assert (questions.count("Count"), questions.count("Tell")) == (1, 6)
    assert {tuple(sorted(request)) for request in endpoint.requests if "stream_options" not in request} == {
        ("messages", "model", "stream")
    }
    await said(STORY[:9], model="other")
    assert [request["model"] for request in endpoint.requests[-2:]] == ["other"] * 2


async def test_a_busy_endpoint_is_tried_again(endpoint: Endpoint) -> None:
    """An error that may pass says nothing of what the endpoint can do."""
    endpoint.kind = "busy"
    with pytest.raises(TransientProviderError):
        await said(STORY[:9])
    endpoint.kind = "plain"
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
    assert items == ([STORY] if goes_on else [StartOver(), STORY])
    assert can_continue(chat.agent) is goes_on
    asked = any(request["messages"][0] == continuing.QUESTION for request in endpoint.requests)
    assert asked is (mode != "never")


async def test_a_refusal_of_the_answer_itself_is_told(endpoint: Endpoint) -> None:
    """Only the trial may be refused without harm."""
    endpoint.kind = "vllm"
    assert await said(STORY[:9]) == [STORY[9:]]
    endpoint.kind = "strict"
    with pytest.raises(ProviderError, match="unknown field"):
        await said(STORY[:9])
