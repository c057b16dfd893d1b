"""Agent `chat`: any OpenAI-compatible endpoint, streaming.

`params` go to the endpoint as they are (temperature, max_tokens, …), `model` among them.
"""

from collections.abc import AsyncIterator
from functools import cache
from json import JSONDecodeError
from typing import Any

import openai

from turnpool import tracing
from turnpool.agent import Event, Message, Turn, Usage
from turnpool.errors import ProviderError, TransientProviderError
from turnpool.settings import Settings, read_settings

# Seconds: to connect, and the longest silence; long answers of a busy provider begin late.
CONNECT_TIMEOUT, SILENCE_TIMEOUT = 5.0, 120.0
# Statuses that may pass: time-out, conflict, too many, and all of the 500s.
TRANSIENT = frozenset({408, 409, 429})
SERVER_ERROR = 500
# What of a stored message the endpoint is sent.
SENT = ("role", "content", "name", "tool_calls", "tool_call_id")


async def agent(turn: Turn) -> AsyncIterator[str | Event]:
    """Send the conversation, yield the answer's text as it comes."""
    client, model = _client()
    request: dict[str, Any] = {"model": model, **turn.params, "stream": True}
    request["stream_options"] = {"include_usage": True}
    request["messages"] = [_message(message) for message in turn.messages]
    span = tracing.model_span(request["model"], client.base_url.host)
    try:
        stream = await client.post(
            "/chat/completions", body=request, cast_to=object, stream=True,
            stream_cls=openai.AsyncStream[dict[str, Any]],
            options={"headers": tracing.headers(span)},
        )  # fmt: skip
        async with stream:
            async for chunk in stream:
                for item in _items(chunk):
                    yield item
    except openai.APIError as error:
        raise _translated(error) from error
    except JSONDecodeError as error:
        raise TransientProviderError(f"The model's provider sent a broken event: {error}") from error
    finally:
        span.end()


@cache
def _client() -> tuple[openai.AsyncOpenAI, str]:
    settings: Settings = read_settings()
    client = openai.AsyncOpenAI(
        base_url=settings.llm_base_url,
        api_key=settings.llm_api_key.get_secret_value(),
        # The runner tries again, so that it is done one way for all agents.
        max_retries=0,
        timeout=openai.Timeout(SILENCE_TIMEOUT, connect=CONNECT_TIMEOUT),
    )
    return client, settings.llm_model


def _message(message: Message) -> Message:
    return {name: message[name] for name in SENT if name in message}


def _items(chunk: Any) -> list[str | Event]:
    """Text and usage of one chunk of the stream."""
    deltas = [choice.get("delta") or {} for choice in chunk.get("choices") or ()]
    items: list[str | Event] = [delta["content"] for delta in deltas if delta.get("content")]
    if usage := chunk.get("usage"):
        items.append(Usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0))
    return items


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
    try:
        return float(value) if value else None
    except ValueError:
        return None
