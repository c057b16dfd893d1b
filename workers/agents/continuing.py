"""How an OpenAI-compatible endpoint is asked to go on with an answer that broke off.

The partial answer is sent as the last message, the assistant's own. No endpoint says whether it goes
on from there, so each is asked once to go on counting: one that does so says the next number, one that
repeats what it was given says that first, and one that does neither starts over.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, NamedTuple

from turnpool.agent import Event, Message, StartOver
from turnpool.errors import ProviderError, TransientProviderError
from turnpool.logs import get_logger

log = get_logger(__name__)

Body = dict[str, Any]
Answer = AsyncGenerator[str | Event, None]
Ask = Callable[[Body], Answer]
"""Sends a request's body and gives the answer as it comes."""


class Way(NamedTuple):
    """What is added to the request and to the partial answer in it; whether the endpoint repeats that."""

    body: Body
    message: Message
    repeats: bool = False


WAYS = (
    Way({}, {}),  # llama.cpp, and providers that complete any last message
    Way({"add_generation_prompt": False, "continue_final_message": True}, {}),  # vLLM, SGLang
    Way({}, {"prefix": True}),  # Mistral, DeepSeek
)
QUESTION: Message = {"role": "user", "content": "Count to twenty in digits."}
# No answer that starts over would begin so.
PARTIAL = "Gladly, and slowly: 1, 2, 3, 4, 5, 6,"
REST = "7, 8"
# Seconds to wait for each token of a trial; turns wait for it that have been cut off already.
TRIAL_TIMEOUT = 10.0


def request(body: Body, way: Way, partial: str) -> Body:
    """The request for the rest of an answer."""
    answer = {"role": "assistant", "content": partial, **way.message}
    return {**body, **way.body, "messages": [*body["messages"], answer]}


async def find_way(ask: Ask, body: Body) -> Way | None:
    """How the endpoint is made to go on, None if it cannot be. Raises TransientProviderError."""
    for way in WAYS:
        # Nothing else of the turn's own request: an answer of one token would show nothing.
        small: Body = {name: body[name] for name in ("model", "stream") if name in body}
        try:
            text = await _beginning(ask(request({**small, "messages": [QUESTION]}, way, PARTIAL)))
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


async def without(partial: str, answer: AsyncIterator[str | Event]) -> Answer:
    """What follows the partial answer, of one that repeats it; if it does not after all, all of it."""
    text = ""
    async for item in answer:
        if text == partial or not isinstance(item, str):
            yield item
            continue
        text += item
        if text.startswith(partial):
            if rest := text.removeprefix(partial):
                yield rest
            text = partial
        elif not partial.startswith(text):
            yield StartOver()
            yield text
            text = partial
    if text not in ("", partial):
        yield StartOver()
        yield text


class Ways:
    """What is known of the endpoints, by address and model. Belongs to one event loop."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], asyncio.Task[Way | None]] = {}

    def cannot(self, endpoint: tuple[str, str]) -> bool:
        """Whether the endpoint was tried and cannot go on."""
        task = self._found.get(endpoint)
        return task is not None and _answered(task) and task.result() is None

    async def find(self, endpoint: tuple[str, str], ask: Ask, body: Body) -> Way | None:
        """As `find_way`, which is asked once, however many turns want to know."""
        task = self._found.get(endpoint)
        if task is None or (task.done() and not _answered(task)):
            task = self._found[endpoint] = asyncio.create_task(find_way(ask, body), name="find a way")
        return await asyncio.shield(task)


def _answered(task: asyncio.Task[Way | None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
