"""Agent `chat`: any OpenAI-compatible endpoint, streaming.

`params` go to the endpoint as they are (temperature, max_tokens, …), `model` among them. An answer
that broke off goes on where the endpoint can do so (`continuing.py`).
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NamedTuple
from weakref import WeakSet

import openai
from pydantic import BaseModel, ValidationError

from turnpool import tracing
from turnpool.agent import Event, Message, StartOver, Turn, Usage, continues
from turnpool.errors import ProviderError, TransientProviderError
from turnpool.logs import get_logger
from turnpool.settings import Settings, read_settings
from workers.agents.continuing import WAYS, Answer, Body, Way, Ways, request, without

log = get_logger(__name__)

# Seconds: to connect, and the longest silence before the first token; busy providers begin late.
CONNECT_TIMEOUT, SILENCE_TIMEOUT = 5.0, 120.0
# Statuses that may pass: time-out, conflict, too many, and all of the 500s.
TRANSIENT = frozenset({408, 409, 429})
SERVER_ERROR = 500
# What an answer ends with whose model wants a tool to be run; the second is of an older form.
TOOLS = frozenset({"tool_calls", "function_call"})
NO_TOOLS = (
    "The model asks for a tool, and agent `chat` runs none: leave `tools` out of params, or write an agent."
)
# What of a stored message the endpoint is sent.
SENT = ("role", "content", "name", "tool_calls", "tool_call_id")


class Delta(BaseModel):
    """A piece of the answer; may be empty. What is not text only shows that the model works."""

    content: str | None = None
    tool_calls: Any = None
    refusal: Any = None
    # What the providers call the text of a model that thinks.
    reasoning_content: Any = None
    reasoning: Any = None

    @property
    def empty(self) -> bool:
        """Whether it is a mere sign of life."""
        return not (
            self.content or self.tool_calls or self.refusal or self.reasoning_content or self.reasoning
        )


class Choice(BaseModel):
    """`finish_reason` comes with the last piece."""

    index: int | None = None
    delta: Delta | None = None
    finish_reason: str | None = None


class Tokens(BaseModel):
    """What was counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chunk(BaseModel):
    """One event of the stream, as far as it is read here.

    Source: https://platform.openai.com/docs/api-reference/chat-streaming
    """

    choices: list[Choice] | None = None
    usage: Tokens | None = None

    @property
    def answer(self) -> Choice:
        """What it has of the answer: the first, where `n` in the params asks for several."""
        return next((choice for choice in self.choices or () if not choice.index), Choice())

    @property
    def text(self) -> str:
        """Text in it."""
        delta = self.answer.delta
        return (delta and delta.content) or ""

    @property
    def calls(self) -> bool:
        """Whether the model wants a tool to be run."""
        choice = self.answer
        return choice.finish_reason in TOOLS or bool(choice.delta and choice.delta.tool_calls)

    @property
    def empty(self) -> bool:
        """Whether it brings no answer any further."""
        choices = self.choices or ()
        return not any(
            choice.finish_reason or (choice.delta and not choice.delta.empty) for choice in choices
        )


class Endpoint(NamedTuple):
    """The endpoint that the settings name, and what is known of it.

    `undecided`: turns that tried in vain how it goes on, and do not wait for that again.
    """

    client: openai.AsyncOpenAI
    settings: Settings
    ways: Ways
    undecided: WeakSet[Turn]


def _may_continue() -> bool:
    endpoint = _endpoint()
    mode = endpoint.settings.chat_continue
    key = (endpoint.settings.llm_base_url, endpoint.settings.llm_model)
    return mode == "always" or (mode == "auto" and not endpoint.ways.cannot(key))


@continues(when=_may_continue)
async def agent(turn: Turn) -> AsyncIterator[str | Event]:
    """Send the conversation, yield the answer's text as it comes."""
    body: Body = {"model": _endpoint().settings.llm_model, **turn.params, "stream": True}
    body["stream_options"] = {"include_usage": True}
    body["messages"] = [_message(message) for message in turn.messages]
    way = await _way(turn, body) if turn.partial else None
    said = False
    if way:
        try:
            async with aclosing(_rest(turn.partial, way, body)) as answer:
                async for item in answer:
                    said = True
                    yield item
        except ProviderError as error:
            if said or _asks_to_wait(error):
                raise
            log.warning("continuation_failed", turn=turn.id, error=error.message)
        else:
            return
    # The text so far stands until there is another: the provider may fail this request too.
    over = bool(turn.partial)
    async with aclosing(_ask(body)) as answer:
        async for item in answer:
            if over:
                yield StartOver()
                over = False
            yield item
    if over:
        yield StartOver()


def _rest(partial: str, way: Way, body: Body) -> Answer:
    """What follows the partial answer."""
    answer = _ask(request(body, way, partial))
    return without(partial, answer) if way.repeats else answer


async def _way(turn: Turn, body: Body) -> Way | None:
    """How the endpoint goes on with an answer, None if it does not, or if that cannot be told now."""
    _, settings, ways, undecided = _endpoint()
    if settings.chat_continue == "never":
        return None
    found = None
    if turn not in undecided:
        try:
            found = await ways.find((settings.llm_base_url, body["model"]), _ask, body)
        except TransientProviderError as error:
            if _asks_to_wait(error):
                raise
            log.warning("trial_failed", turn=turn.id, error=error.message)
            undecided.add(turn)
    return WAYS[0] if found is None and settings.chat_continue == "always" else found


def _asks_to_wait(error: ProviderError) -> bool:
    """Whether the provider said when to ask again: then it is asked the same again, and the text stands."""
    return isinstance(error, TransientProviderError) and error.retry_after is not None


async def _ask(body: Body) -> Answer:
    """Text and usage as they come. Raises ProviderError, TransientProviderError."""
    client, settings, *_ = _endpoint()
    span = tracing.model_span(body["model"], client.base_url.host)
    usage: Tokens | None = None
    said = called = False
    try:
        stream = await client.post(
            "/chat/completions", body=body, cast_to=object, stream=True,
            stream_cls=openai.AsyncStream[Any],
            options={"headers": tracing.headers(span)},
        )  # fmt: skip
        async with stream:
            async for chunk in _to_the_end(stream, settings.stall_seconds):
                if chunk.text:
                    said = True
                    yield chunk.text
                called = called or chunk.calls
                # Some send it with each chunk, of all the answer so far.
                usage = chunk.usage or usage
        if usage:
            yield Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0)
        if called and not said:
            raise ProviderError(NO_TOOLS)
    except openai.APIError as error:
        raise _translated(error) from error
    finally:
        span.end()


async def _to_the_end(stream: AsyncIterator[Any], stall_seconds: float) -> AsyncIterator[Chunk]:
    """The chunks of an answer. Raises TransientProviderError if it stalls, breaks, is none, or has no end."""
    begun = ended = False
    left = stall_seconds
    while True:
        asked = time.monotonic()
        try:
            async with asyncio.timeout(left if begun else None):
                chunk = await _next(stream)
        except StopAsyncIteration:
            break
        except (TimeoutError, TransientProviderError) as error:
            if ended:
                # The answer is whole, only what was counted may be missing.
                return
            if isinstance(error, TransientProviderError):
                raise
            message = f"The model's provider stopped in mid-answer and was silent for {stall_seconds:g} s."
            raise TransientProviderError(message) from None
        # Only the time spent here counts: whoever reads the answer may be slow.
        left = left - (time.monotonic() - asked) if chunk.empty else stall_seconds
        yield chunk
        # Some send an empty chunk at once, long before the first token.
        begun = begun or bool(chunk.text)
        ended = ended or bool(chunk.answer.finish_reason)
    if not ended:
        raise TransientProviderError("The model's provider ended its answer without a finish_reason.")


async def _next(stream: AsyncIterator[Any]) -> Chunk:
    """The next chunk. Raises StopAsyncIteration, TransientProviderError."""
    try:
        return Chunk.model_validate(await anext(stream))
    except openai.APIError as error:
        raise _translated(error) from error
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        message = f"The model's provider sent a broken chunk: {name}: {first['msg']}"
        raise TransientProviderError(message) from None
    # No UTF-8, no JSON, a number too long or lists too deep to be read.
    except (ValueError, RecursionError) as error:
        raise TransientProviderError(f"The model's provider sent a broken event: {error}") from error


@cache
def _endpoint() -> Endpoint:
    settings: Settings = read_settings()
    client = openai.AsyncOpenAI(
        base_url=settings.llm_base_url,
        api_key=settings.llm_api_key.get_secret_value(),
        # The runner tries again, so that it is done one way for all agents.
        max_retries=0,
        timeout=openai.Timeout(SILENCE_TIMEOUT, connect=CONNECT_TIMEOUT),
    )
    return Endpoint(client, settings, Ways(), WeakSet())


def _message(message: Message) -> Message:
    return {name: message[name] for name in SENT if name in message}


def _translated(error: openai.APIError) -> ProviderError:
    if isinstance(error, openai.APIStatusError):
        message = f"The model's provider answered {error.status_code}: {error.message}"
        if error.status_code in TRANSIENT or error.status_code >= SERVER_ERROR:
            return TransientProviderError(message, _retry_after(error.response.headers.get("retry-after")))
        return ProviderError(message)
    if isinstance(error, openai.APIConnectionError):
        return TransientProviderError(f"The model's provider cannot be reached: {error.message}")
    return TransientProviderError(f"The model's provider broke off: {error.message}")


def _retry_after(value: str | None) -> float | None:
    """Seconds, of a header that has seconds or a date (RFC 9110, 10.2.3); None for what is neither."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None
