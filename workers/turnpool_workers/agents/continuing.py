"""How an OpenAI-compatible endpoint is asked to go on with an answer that broke off.

The partial answer is sent as the last message, the assistant's own. No endpoint says whether it goes
on from there, so each is asked once to go on counting: one that does so says the next number, one that
repeats what it was given says that first, and one that does neither starts over. Params like
`response_format` decide it too, so each shape of them has a trial of its own.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from turnpool.agent import Event, Message
from turnpool.errors import ProviderError, TransientProviderError
from turnpool.logs import get_logger

log = get_logger(__name__)

Body = dict[str, Any]
Answer = AsyncGenerator[str | Event, None]
Ask = Callable[[Body], Answer]
"""Sends a request's body and gives the answer as it arrives."""


class Way(NamedTuple):
    """What is added to the request and to the partial answer in it; whether the endpoint repeats that."""

    body: Body
    message: Message
    repeats: bool = False


PLAIN = Way({}, {})
"""llama.cpp, and providers that complete any last message."""
# Explicit ones first: an endpoint without them may close the message, and a good model guess how it goes on.
WAYS = (
    Way({"add_generation_prompt": False, "continue_final_message": True}, {}),  # vLLM, SGLang
    Way({}, {"prefix": True}),  # Mistral, DeepSeek
    PLAIN,
)
QUESTION: Message = {"role": "user", "content": "Count to twenty in digits."}
# No answer that starts over would begin so.
PARTIAL = "Gladly, and slowly: 1, 2, 3, 4, 5, 6,"
REST = "7, 8"
# Seconds to wait for each token of a trial; turns wait for it that have been cut off already.
TRIAL_TIMEOUT = 10.0
# Tokens of a trial, where the params set a limit: one of a single token would show nothing.
TRIAL_TOKENS = 64
LIMITS = ("max_tokens", "max_completion_tokens")
# Params that change neither how a message is continued nor what an answer is made of.
INDIFFERENT = frozenset({
    "model", "messages", "stream", "stream_options", *LIMITS, "n", "stop", "seed", "temperature", "top_p",
    "user", "metadata", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "store",
    "service_tier", "safety_identifier", "prompt_cache_key",
})  # fmt: skip
# Params of a trial that are left out: they would cut it short, or have it answered several times.
NOT_TRIED = frozenset({"messages", "stream_options", "n", "stop"})
# Shapes of which it is remembered how they go on; clients choose the params.
MAX_KNOWN = 1000


def shape_of(body: Body) -> str:
    """What of the params decides how an answer goes on; empty where there are none such."""
    shape = {name: value for name, value in body.items() if name not in INDIFFERENT}
    return sha256(orjson.dumps(shape, option=orjson.OPT_SORT_KEYS)).hexdigest() if shape else ""


def request(body: Body, way: Way, partial: str) -> Body:
    """The request for the rest of an answer."""
    answer = {"role": "assistant", "content": partial, **way.message}
    return {**body, **way.body, "messages": [*body["messages"], answer]}


async def find_way(ask: Ask, body: Body) -> Way | None:
    """How the endpoint is made to go on, None if it cannot be. Raises TransientProviderError."""
    trial = {name: value for name, value in body.items() if name not in NOT_TRIED}
    trial |= {name: TRIAL_TOKENS for name in LIMITS if name in trial} | {"messages": [QUESTION]}
    for way in WAYS:
        try:
            text = await _beginning(ask(request(trial, way, PARTIAL)))
        except TimeoutError:
            message = f"The model's provider was silent for {TRIAL_TIMEOUT:g} s when asked to continue."
            raise TransientProviderError(message) from None
        except TransientProviderError:
            raise
        except ProviderError as error:
            log.info("endpoint_refuses_to_continue", error=error.message, **way.body, **way.message)
            continue
        if text.startswith(REST):
            return way
        if text.startswith(f"{PARTIAL} {REST}"):
            return way._replace(repeats=True)
    return None


async def _beginning(answer: Answer) -> str:
    """As much of the answer as tells what it is."""
    text = ""
    async with aclosing(answer):
        while True:
            try:
                async with asyncio.timeout(TRIAL_TIMEOUT):
                    item = await anext(answer)
            except StopAsyncIteration:
                break
            if isinstance(item, str):
                text = (text + item).lstrip()
            if len(text) >= len(f"{PARTIAL} {REST}") or not _undecided(text):
                break
    return text


def _undecided(text: str) -> bool:
    return REST.startswith(text) or PARTIAL.startswith(text) or text.startswith(PARTIAL)


Key = tuple[str, str, str]
"""Address, model, and shape of the params."""


class Ways:
    """What is known of the endpoints. Belongs to one event loop."""

    def __init__(self) -> None:
        self._found: dict[Key, asyncio.Task[Way | None]] = {}

    def cannot(self, endpoint: Key) -> bool:
        """Whether the endpoint was tried and cannot go on."""
        task = self._found.get(endpoint)
        return task is not None and _answered(task) and task.result() is None

    async def find(self, endpoint: Key, ask: Ask, body: Body) -> Way | None:
        """As `find_way`, which is asked once, however many turns want to know."""
        task = self._found.get(endpoint)
        if task is None or (task.done() and not _answered(task)):
            if len(self._found) >= MAX_KNOWN:
                del self._found[next(iter(self._found))]
            task = self._found[endpoint] = asyncio.create_task(find_way(ask, body), name="find a way")
        return await asyncio.shield(task)


def _answered(task: asyncio.Task[Way | None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
