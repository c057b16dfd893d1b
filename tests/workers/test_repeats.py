"""Answers that go on, repeat, or start over."""

from collections.abc import AsyncIterator

import pytest

from turnpool.agent import Event, Finish, StartOver, Usage
from turnpool_workers.agents.repeats import without

pytestmark = pytest.mark.anyio

CITY = '{"city": "Paris", "'
STORY = "Once upon a time there was a model."


async def rest(partial: str, text: str, *, repeats: bool = False, size: int = 3) -> str | None:
    """What is yielded after `partial`, None if the text starts over; whatever its pieces are."""

    async def answer() -> AsyncIterator[str | Event]:
        for start in range(0, len(text), size):
            yield text[start : start + size]
        yield Usage(1, 2)
        yield Finish("length")

    items = [item async for item in without(partial, answer(), repeats=repeats)]
    assert items[-2:] == [Usage(1, 2), Finish("length")]
    items = items[:-2]
    if StartOver() in items:
        assert items[0] == StartOver()
        assert "".join(map(str, items[1:])) == text
        return None
    return "".join(map(str, items))


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("partial", "text", "expected"),
    [
        # It goes on.
        (CITY, 'country": "France"}', 'country": "France"}'),
        ('{"a": ', '{"b": 1}}', '{"b": 1}}'),
        ('{"a": [', '{"b": 1}]}', '{"b": 1}]}'),
        ("[", "[1, 2]]", "[1, 2]]"),
        ("[[1], ", "[2]]", "[2]]"),
        ('{"a": "', '{x}"}', '{x}"}'),
        (STORY[:9], STORY[9:], STORY[9:]),
        ("ha", "ha ha", "ha ha"),
        ("- one\n", "- two\n- three", "- two\n- three"),
        ("import os\n", "import sys", "import sys"),
        ("Never gonna give you up\n", "Never gonna let you down", "Never gonna let you down"),
        ("1, ", "2", "2"),
        (STORY, "", ""),
        # It repeats, and what it repeats is cut.
        (CITY, CITY + 'x": 1}', 'x": 1}'),
        ('{"', '{"a": 1}', 'a": 1}'),
        (STORY[:20], STORY, STORY[20:]),
        (STORY[:20], "\n" + STORY, STORY[20:]),
        (STORY, STORY, ""),
        # It starts over.
        (CITY, '{"city": "London"}', None),
        (CITY, '{"city": "Paris"}', None),
        ("{", '{"a": 1}', None),
        ('{"a"', '{"b": 1}', None),
        ('{"a": 1', '{"b": 1}', None),
        ('{"a": 1, ', '{"b": 1}', None),
        ('{"a": 1}', '{"b": 1}', None),
        ("[1, 2", "[3]", None),
        ('```json\n{"a"', '```json\n{"b": 1}\n```', None),
        (STORY, "Once upon a time there was no model.", None),
        (STORY, STORY[:30], None),
    ],
)
async def test_a_continuation_is_told_from_a_repetition(
    partial: str, text: str, expected: str | None, size: int
) -> None:
    """Two answers are never glued together."""
    assert await rest(partial, text, size=size) == expected


@pytest.mark.parametrize(
    ("partial", "text", "expected"),
    [("ha", "ha ha", " ha"), ("ha", "ho", None), (STORY[:9], STORY[:5], None), ("ha", "", "")],
)
async def test_an_endpoint_that_repeats_is_expected_to(partial: str, text: str, expected: str | None) -> None:
    """The shortest repetition is cut; without one the answer is another."""
    assert await rest(partial, text, repeats=True) == expected
