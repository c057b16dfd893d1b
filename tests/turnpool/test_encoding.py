"""JSON of what agents give."""

import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from types import MappingProxyType
from uuid import UUID

import orjson
import pytest
from pydantic import BaseModel, SecretStr

from turnpool.encoding import encode


@dataclass
class Row:
    """A dataclass with a value that needs help."""

    price: Decimal


class Model(BaseModel):
    """A model with one, and with a secret."""

    at: datetime
    key: SecretStr = SecretStr("hush")


class Colour(Enum):
    """An enum."""

    RED = "red"


Point = namedtuple("Point", "x y")  # noqa: PYI024 - of the kind that people have
AT = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (Decimal("1.10"), "1.10"),
        (AT, "2026-11-30T00:00:00+00:00"),
        (date(2026, 11, 30), "2026-11-30"),
        (timedelta(seconds=90), 90.0),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Row(Decimal(2)), {"price": "2"}),
        (Model(at=AT), {"at": "2026-11-30T00:00:00Z", "key": "**********"}),
        (Colour.RED, "red"),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({2, 1}), [1, 2]),
        (Point(1, Decimal(2)), [1, "2"]),
        (PurePosixPath("/a/b"), "/a/b"),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        ({1: "one", UUID(int=1): 2}, {"1": "one", "00000000-0000-0000-0000-000000000001": 2}),
        ([{"deep": [Decimal(1), None]}], [{"deep": ["1", None]}]),
        ("null", "null"),
    ],
)
def test_what_agents_have_is_encoded(value: object, read: object) -> None:
    """As a reader in another language understands it."""
    assert orjson.loads(encode(value)) == read


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        object(),
        math.nan,
        [math.inf],
        {"a": -math.inf},
        Row(math.nan),  # type: ignore[arg-type]
        {"half": "\ud83d"},
        2**64,
        lambda: None,
        {("a", "b"): 1},
    ],
)
def test_what_is_no_json_is_refused(value: object) -> None:
    """Silently turned into null or into an address, it would be believed."""
    with pytest.raises(TypeError):
        encode(value)
