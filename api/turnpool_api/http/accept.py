"""Which of the answers we have a client prefers (RFC 9110, 12.5.1)."""

import re
from collections.abc import Iterable
from functools import lru_cache

EVENT_STREAM, JSON = "text/event-stream", "application/json"
# Headers whose meaning is remembered: clients send few, an attacker any number, of the size of a whole head.
MAX_REMEMBERED = 64
# Items of a list, and parts of an item: a comma or semicolon within quotes separates nothing.
_ITEM = re.compile(r'(?:[^,"]|"(?:\\.|[^"\\])*")+')
_PART = re.compile(r'(?:[^;"]|"(?:\\.|[^"\\])*")+')
_QVALUE = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


@lru_cache(MAX_REMEMBERED)
def prefers_stream(accept: str) -> bool:
    """Whether a client with this Accept header wants an event stream rather than JSON.

    A client that accepts both alike gets the stream if it names it: `*/*` says that it has not chosen.
    """
    ranges = dict(_ranges(accept))
    if not ranges:
        return False
    stream, json = _quality(EVENT_STREAM, ranges), _quality(JSON, ranges)
    return stream > json or (stream == json > 0 and EVENT_STREAM in ranges)


def _ranges(accept: str) -> Iterable[tuple[str, float]]:
    for item in _ITEM.findall(accept):
        parts = [part.strip().lower() for part in _PART.findall(item)]
        if parts and parts[0]:
            yield parts[0], _weight(parts[1:])


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            value = value.strip()
            # One that is not a weight: as if it were not there.
            return float(value) if _QVALUE.fullmatch(value) else 1.0
    return 1.0


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """Of the most specific range that matches."""
    main = media_type.partition("/")[0]
    for media_range in (media_type, f"{main}/*", "*/*"):
        if media_range in ranges:
            return ranges[media_range]
    return 0.0
