"""The agent `simulated`."""

import asyncio
from typing import Any

import pytest

from turnpool.agent import Event, StartOver, Steps, Turn, Usage, can_continue
from turnpool.errors import ProviderError, TransientProviderError
from turnpool_workers.agents.simulated import agent

pytestmark = pytest.mark.anyio


def turn(partial: str = "", **params: Any) -> Turn:
    """A turn whose conversation has four words."""

    async def record(_: str, result: bytes | None) -> bytes:
        await asyncio.sleep(0)
        return result or b""

    messages = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three  four"}]
    quick = {"ttft_ms": 0, "itl_ms": 0}
    params = quick | params
    return Turn("s.1", "s", "simulated", messages[:1], messages, params, {}, 1, Steps(record), partial)


async def answer(items: list[str | Event] | None = None, **params: Any) -> list[str | Event]:
    """All that it yields; what comes before an error is in the list given."""
    items = [] if items is None else items
    async for item in agent(turn(**params)):
        items.append(item)
    return items


async def test_the_words_are_numbered() -> None:
    """Token k is the word w<k> and a space; then the usage, the conversation's words being the input."""
    assert await answer(tokens=3) == ["w0 ", "w1 ", "w2 ", Usage(4, 3)]
    assert await answer(tokens=0) == [Usage(4, 0)]
    assert len(await answer()) == 101


async def test_it_goes_on_exactly() -> None:
    """From what stands; text that is not its own is taken back."""
    assert can_continue(agent)
    assert await answer(tokens=4, partial="w0 w1 ") == ["w2 ", "w3 ", Usage(4, 2)]
    assert await answer(tokens=2, partial="w0 w1 ") == [Usage(4, 0)]
    for other in ("w0 w2 ", "w0 w", "hello"):
        assert await answer(tokens=1, partial=other) == [StartOver(), "w0 ", Usage(4, 1)]


async def test_it_fails_where_it_is_told_to() -> None:
    """The tokens before come first, and the error is not one that passes."""
    said: list[str | Event] = []
    with pytest.raises(ProviderError, match="failed at token 2") as raised:
        await answer(said, tokens=5, fail_at=2)
    assert said == ["w0 ", "w1 "]
    assert not isinstance(raised.value, TransientProviderError)


async def test_it_keeps_its_times_against_the_clock() -> None:
    """Tokens come when they are due, from the start on, so that their times do not add up errors."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    times = [loop.time() - started async for item in agent(turn(tokens=5, ttft_ms=60, itl_ms=20)) if item]
    # The clock of a timer is coarse by some milliseconds.
    for k, came in enumerate(times[:5]):
        assert came >= 0.06 + 0.02 * k - 0.005
    assert times[4] < 1


async def test_the_same_seed_gives_the_same_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jitter can be repeated."""
    slept: list[float] = []
    now = asyncio.get_running_loop().time()

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 9))

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)

    async def times(seed: int | None) -> list[float]:
        slept.clear()
        await answer(tokens=10, itl_ms=1000, seed=seed)
        return slept.copy()

    first = await times(1)
    assert first == await times(1)
    assert first != await times(2)
    assert await times(None) == pytest.approx([float(k) for k in range(10)], abs=1e-6)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"tokens": "many"}, "simulated: params.tokens: Input should be a valid integer"),
        ({"tokens": -1}, "simulated: params.tokens: Input should be greater than or equal to 0"),
        ({"itl_ms": 1e9}, "simulated: params.itl_ms: Input should be less than or equal to"),
        ({"speed": 1}, "simulated: params.speed: Extra inputs are not permitted"),
    ],
)
async def test_wrong_params_are_named(params: dict[str, Any], says: str) -> None:
    """The turn fails with the name of the wrong parameter, and before its first word."""
    with pytest.raises(ProviderError) as raised:
        await answer(**params)
    assert raised.value.message.startswith(says)
