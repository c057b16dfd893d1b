"""What is measured on a Valkey."""

import json
from dataclasses import asdict
from itertools import pairwise
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from bench.scale.valkey import SIZES, Bytes, Fixed, Side, _line, _turn, load, turn_bytes
from turnpool import keys
from turnpool.store.store import Store


@pytest.mark.slow
async def test_bytes_of_a_turn_are_those_of_its_keys(store: Store, redis_url: str) -> None:
    """Of a turn of a shape that was not among those measured, the log within a block of 4 KB."""
    async with Redis.from_url(redis_url) as redis:
        found = await turn_bytes(store, redis)
        await redis.flushall()
        await _turn(store, "s", events=100, tokens=300)
        sizes: dict[bytes, int] = {
            key: await cast("Any", redis).memory_usage(key, samples=0) async for key in redis.scan_iter("*")
        }
        log = sizes.pop(keys.log(store.prefix, "default:s.1").encode())
        assert found.log(100, 300) == pytest.approx(log, abs=4096)
        assert found.record(300) == pytest.approx(sum(sizes.values()), rel=0.1)
        await redis.flushall()


def test_more_takes_more() -> None:
    """Events, tokens and turns each count."""
    size = Bytes(1, 10, 100, 1000, 10_000)
    assert size.log(2, 3) == 1 + 20 + 300
    assert size.record(3) == 31_000
    assert all(less < more for less, more in pairwise([size.log(1, 1), size.log(2, 1), size.log(2, 2)]))


def test_a_pipeline_is_told_from_what_is_in_it() -> None:
    """Two sizes give both; neither is below zero."""
    low, high = (30 + 2 * size for size in SIZES)
    assert _line(low, high) == pytest.approx((30, 2))
    assert _line(1, 100)[0] == 0


def test_what_was_written_is_read() -> None:
    """As JSON."""
    fixed = Fixed(Bytes(1, 2, 3, 4, 5), Side(6, 7, 8), Side(9, 10, 11), 12)
    assert load(json.loads(json.dumps(asdict(fixed)))) == fixed
