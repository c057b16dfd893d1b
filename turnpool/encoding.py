"""JSON of what agents give: arguments and results of tools and steps."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import orjson
from pydantic import BaseModel

# Plain JSON is encoded without these, which cost time.
OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def encode(value: Any, option: int = 0) -> bytes:
    """The value as JSON; Decimal, timedelta and paths as text or number, models and dataclasses as objects.

    Raises TypeError for what is no JSON: bytes, NaN, half a surrogate pair, an integer over 64 bits.
    """
    try:
        encoded = orjson.dumps(value, default=_plain, option=option)
    except orjson.JSONEncodeError:
        encoded = orjson.dumps(value, default=_plain, option=option | OPTIONS)
    # orjson writes NaN and the infinities as null, and a reader would not know.
    if b"null" in encoded and _has_nan(value):
        raise TypeError("NaN and infinity are no JSON")
    return encoded


def _plain(value: Any) -> Any:
    """What orjson cannot encode by itself, in types that it can."""
    match value:
        case Decimal() | PurePath():
            return str(value)
        case timedelta():
            return value.total_seconds()
        case BaseModel():
            return value.model_dump(mode="json")
        case Mapping():
            return dict(value)
        case set() | frozenset():
            # In one order in every process: step results are found by their arguments.
            return sorted(value, key=encode)
        case tuple():
            return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _has_nan(value: Any) -> bool:
    match value:
        case float():
            return not math.isfinite(value)
        case Mapping():
            return any(map(_has_nan, value.values()))
        case list() | tuple() | set() | frozenset():
            return any(map(_has_nan, value))
        case BaseModel():
            return _has_nan(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return any(_has_nan(getattr(value, field.name)) for field in fields(value))
    return False
