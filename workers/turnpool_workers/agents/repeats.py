"""Tells an answer that goes on from one that says the same again, or begins another.

An endpoint may do either whatever it was asked: the model starts over after a closed message, a grammar
(`response_format`) begins at its beginning. Such texts must not be glued together.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from enum import Enum, auto

from turnpool.agent import Event, StartOver

# Characters of the answer's beginning that its continuation has by chance at most: all of a short answer, and
# some of a longer one. JSON and fenced code begin alike only where they begin.
ALL_OF_TEXT, SOME_OF_TEXT = 8, 24
ALL_OF_JSON, SOME_OF_JSON = 2, 8
STRUCTURED = ("{", "[", "```")


class Verdict(Enum):
    """What a continuation is, as far as it has arrived."""

    OPEN = auto()
    CONTINUES = auto()
    REPEATS = auto()
    STARTS_OVER = auto()


async def without(
    partial: str, answer: AsyncIterator[str | Event], *, repeats: bool
) -> AsyncGenerator[str | Event, None]:
    """Yield what follows the partial answer; of one that does not go on from it all, after a StartOver.

    `repeats`: the endpoint is known to give the partial answer first.
    """
    held, verdict = "", Verdict.OPEN
    async for item in answer:
        if verdict is not Verdict.OPEN:
            yield item
        elif isinstance(item, str):
            held += item
            verdict = judge(partial, held, repeats=repeats)
            for text in _said(verdict, partial, held):
                yield text
        else:
            # Only at the end of the text there is anything else.
            verdict = _last(judge(partial, held, repeats=repeats), partial, held, repeats=repeats)
            for text in _said(verdict, partial, held):
                yield text
            yield item
    if verdict is Verdict.OPEN:
        for text in _said(_last(verdict, partial, held, repeats=repeats), partial, held):
            yield text


def judge(partial: str, text: str, *, repeats: bool) -> Verdict:
    """What the text is that was given in place of the rest of `partial`."""
    begin, text = partial.lstrip(), text.lstrip()
    structured = begin.startswith(STRUCTURED)
    if begin.startswith(text):
        if text == begin and (repeats or len(begin) >= (ALL_OF_JSON if structured else ALL_OF_TEXT)):
            return Verdict.REPEATS
        return Verdict.OPEN
    if text.startswith(begin) and (repeats or len(begin) >= (ALL_OF_JSON if structured else ALL_OF_TEXT)):
        return Verdict.REPEATS
    agree = next(index for index, (a, b) in enumerate(zip(f"{begin}\0", text, strict=False)) if a != b)
    if repeats or agree >= (SOME_OF_JSON if structured else SOME_OF_TEXT):
        return Verdict.STARTS_OVER
    if text.startswith(("{", "[")) and not _may_open(begin):
        return Verdict.STARTS_OVER
    return Verdict.CONTINUES


def _last(verdict: Verdict, partial: str, text: str, *, repeats: bool) -> Verdict:
    """The verdict once there is no more text."""
    if verdict is not Verdict.OPEN:
        return verdict
    text = text.strip()
    some = SOME_OF_JSON if partial.lstrip().startswith(STRUCTURED) else SOME_OF_TEXT
    return Verdict.STARTS_OVER if text and (repeats or len(text) >= some) else Verdict.CONTINUES


def _said(verdict: Verdict, partial: str, text: str) -> list[str | Event]:
    match verdict:
        case Verdict.STARTS_OVER:
            return [StartOver(), text]
        case Verdict.REPEATS:
            rest = text.lstrip().removeprefix(partial.lstrip())
            return [rest] if rest else []
        case Verdict.CONTINUES if text:
            return [text]
    return []


def _may_open(json: str) -> bool:
    """Whether an object or list may begin where this beginning of JSON ends; True where it is no JSON."""
    if not json.startswith(("{", "[")):
        return True
    in_string = escaped = False
    # Of each open object and list: what was last in it.
    inside: list[str] = []
    last = ""
    for character in json:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
            last = '"'
        elif character == '"':
            in_string = True
        elif character in "{[":
            inside.append(character)
            last = character
        elif character in "}]":
            del inside[-1:]
            last = character
        elif not character.isspace():
            last = character
    if in_string or not inside:
        # In a text anything may follow; nothing at all after the end.
        return in_string
    return last == ":" or (inside[-1] == "[" and last in "[,")
