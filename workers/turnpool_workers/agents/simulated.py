"""Agent `simulated`: tokens on time, without a model. For tests and load.

Token k (from 0) is the word `w<k>` and a space, so that a hole, a double or a wrong order shows in
the text.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from turnpool.agent import Event, StartOver, Turn, Usage, continues
from turnpool.errors import ProviderError

Milliseconds = Annotated[float, Field(ge=0, le=600_000)]


class Params(BaseModel):
    """Tokens and their times: time to first token, time between tokens, jitter by seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(100, ge=0, le=1_000_000)
    ttft_ms: Milliseconds = 20
    itl_ms: Milliseconds = 20
    seed: int | None = None
    fail_at: int | None = Field(None, ge=0)


@continues()
async def agent(turn: Turn) -> AsyncIterator[str | Event]:
    """Yield the words. Times are kept against the clock, so that a late token makes none later."""
    try:
        params = Params.model_validate(turn.params)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        said = f"simulated: params.{name}: {first['msg']}"
        raise ProviderError(said, said) from None
    jitter = random.Random(params.seed) if params.seed is not None else None  # noqa: S311 - the same seed, the same times
    loop = asyncio.get_running_loop()
    due = loop.time() + params.ttft_ms / 1000
    start = turn.partial.count(" ")
    if turn.partial != _words(start):
        start = 0
        yield StartOver()
    for k in range(start, params.tokens):
        await asyncio.sleep(max(due - loop.time(), 0))
        if k == params.fail_at:
            said = f"simulated: failed at token {k}, as asked"
            raise ProviderError(said, said)
        yield f"w{k} "
        # Exponential, as tokens of a busy server come.
        due += params.itl_ms / 1000 * (jitter.expovariate(1) if jitter else 1)
    words = sum(len(str(message.get("content")).split()) for message in turn.messages)
    yield Usage(input_tokens=words, output_tokens=params.tokens - start)


def _words(count: int) -> str:
    return "".join(f"w{k} " for k in range(count))
