"""Agent `chat`: any OpenAI-compatible endpoint, streaming.

`params` go to the endpoint as they are (temperature, max_tokens, …). An answer that broke off goes on where
the endpoint can do so (`continuing.py`).
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple
from weakref import WeakSet

from turnpool.agent import Event, Finish, FinishReason, Message, StartOver, Turn, Usage, checked, continues
from turnpool.errors import InvalidParamsError, ProviderError, TransientProviderError
from turnpool.logs import get_logger
from turnpool.settings import Settings, read_settings
from turnpool_workers.agents.continuing import PLAIN, Answer, Body, Way, Ways, request, shape_of
from turnpool_workers.agents.provider import Provider
from turnpool_workers.agents.repeats import without
from turnpool_workers.history import is_empty

log = get_logger(__name__)

NO_TOOLS = (
    "The model asks for a tool, and agent `chat` runs none: leave `tools` out of params, or write an agent."
)
# What of a message the endpoint is sent; strict ones refuse more.
SENT = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "refusal", "audio")
# Params with which a client would choose another endpoint, key or model: gateways like LiteLLM obey them.
REFUSED = frozenset({
    "api_base", "api_key", "api_version", "base_url", "content_policy_fallbacks", "context_window_fallbacks",
    "custom_llm_provider", "extra_body", "extra_headers", "fallbacks", "headers", "model_list", "user_config",
})  # fmt: skip


class Endpoint(NamedTuple):
    """The endpoint that the settings name, and what is known of it.

    `undecided`: turns that tried in vain how it goes on, and do not wait for that again.
    """

    provider: Provider
    settings: Settings
    ways: Ways
    undecided: WeakSet[Turn]


@cache
def _endpoint() -> Endpoint:
    settings: Settings = read_settings()
    return Endpoint(Provider(settings), settings, Ways(), WeakSet())


def _check() -> None:
    _endpoint()


def _may_continue() -> bool:
    endpoint = _endpoint()
    mode = endpoint.settings.chat_continue
    key = (endpoint.settings.llm_base_url, endpoint.settings.llm_model, "")
    return mode == "always" or (mode == "auto" and not endpoint.ways.cannot(key))


@checked(_check)
@continues(when=_may_continue)
async def agent(turn: Turn) -> AsyncIterator[str | Event]:
    """Send the conversation, yield the answer's text as it arrives."""
    body = _body(turn)
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


def _body(turn: Turn) -> Body:
    """The request. Raises InvalidParamsError."""
    params = turn.params
    if wrong := REFUSED & params.keys():
        raise InvalidParamsError(f"params.{min(wrong)}: agent chat does not let clients set it.")
    settings = _endpoint().settings
    model = params.get("model") or settings.llm_model
    # OpenRouter's list of models to fall back to.
    more = params.get("models") or ()
    for name in (model, *(more if isinstance(more, list | tuple) else (more,))):
        _check_model(name, settings)
    body = {"stream_options": {"include_usage": True}, **params, "model": model}
    if body["stream_options"] is None:
        # Endpoints that know no stream_options refuse it.
        del body["stream_options"]
    return {**body, "stream": True, "messages": _conversation(turn)}


def _check_model(name: object, settings: Settings) -> None:
    known = (settings.llm_model, *settings.model_patterns)
    if not (isinstance(name, str) and any(fnmatchcase(name, pattern) for pattern in known)):
        raise InvalidParamsError(
            f"params.model: {str(name)[:100]!r} is not allowed; TURNPOOL_LLM_MODELS lists those that are."
        )


def _conversation(turn: Turn) -> list[Message]:
    """The messages as strict endpoints take them: none that is empty, and users and assistants by turns.

    Two users' messages in a row are left where an earlier answer was empty; they become one. The turn's own
    input is sent as it was posted.
    """
    conversation: list[Message] = []
    own = len(turn.messages) - len(turn.input)
    for index, message in enumerate(turn.messages):
        sent = {name: message[name] for name in SENT if name in message}
        if is_empty(sent):
            continue
        if index <= own and conversation and _are_plain(conversation[-1], sent):
            sent["content"] = f"{conversation.pop()['content']}\n\n{sent['content']}"
        conversation.append(sent)
    return conversation


def _are_plain(*messages: Message) -> bool:
    """Whether all are a user's, and text alone."""
    return all(
        message.keys() == {"role", "content"}
        and message["role"] == "user"
        and isinstance(message["content"], str)
        for message in messages
    )


def _rest(partial: str, way: Way, body: Body) -> Answer:
    """What follows the partial answer."""
    return without(partial, _ask(request(body, way, partial)), repeats=way.repeats)


async def _way(turn: Turn, body: Body) -> Way | None:
    """How the endpoint goes on with an answer, None if it does not, or if that cannot be told now."""
    _, settings, ways, undecided = _endpoint()
    if settings.chat_continue == "never":
        return None
    found = None
    if turn not in undecided:
        try:
            found = await ways.find((settings.llm_base_url, body["model"], shape_of(body)), _ask, body)
        except TransientProviderError as error:
            if _asks_to_wait(error):
                raise
            log.warning("continuation_probe_failed", turn=turn.id, error=error.message)
            undecided.add(turn)
    return PLAIN if found is None and settings.chat_continue == "always" else found


def _asks_to_wait(error: ProviderError) -> bool:
    """Whether the provider said when to ask again: then it is asked the same again, and the text stands."""
    return isinstance(error, TransientProviderError) and error.retry_after is not None


async def _ask(body: Body) -> AsyncGenerator[str | Event, None]:
    """Text, usage and end as they arrive. Raises ProviderError, TransientProviderError."""
    usage: Usage | None = None
    reason = FinishReason.STOP
    said = declined = called = False
    async with aclosing(_endpoint().provider.ask(body)) as pieces:
        async for piece in pieces:
            for text in filter(None, (piece.text, piece.refusal)):
                said = True
                yield text
            declined = declined or bool(piece.refusal)
            called = called or piece.calls_tool
            reason = piece.finish or reason
            # Some send it with each piece, of all the answer so far.
            usage = piece.usage or usage
    if usage:
        yield usage
    if called and not said:
        raise ProviderError(NO_TOOLS, NO_TOOLS)
    if declined and reason is FinishReason.STOP:
        reason = FinishReason.REFUSAL
    if reason is not FinishReason.STOP:
        yield Finish(reason)
