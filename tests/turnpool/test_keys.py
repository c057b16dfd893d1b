"""The names of keys, in Python and in Lua, and that none is left for ever."""

from collections import Counter
from collections.abc import Callable
from hashlib import sha256

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from tests.conftest import check_keys
from turnpool import keys
from turnpool.redis.cluster import Cluster
from turnpool.redis.urls import parse_url

pytestmark = pytest.mark.anyio

P = keys.prefix("turnpool", "0")
EXPECTED = {
    keys.pool: ([], "turnpool:{0}:pool"),
    keys.session: (["s"], "turnpool:{0}:session:s"),
    keys.line: (["s"], "turnpool:{0}:line:s"),
    keys.messages: (["s"], "turnpool:{0}:messages:s"),
    keys.pending: (["s"], "turnpool:{0}:pending:s"),
    keys.events: (["1", "t:s"], "turnpool:{0}:events:1:t:s"),
    keys.sessions: (["t"], "turnpool:{0}:sessions:t"),
    keys.turn: (["s.1"], "turnpool:{0}:turn:s.1"),
    keys.log: (["s.1"], "turnpool:{0}:log:s.1"),
    keys.steps: (["s.1"], "turnpool:{0}:steps:s.1"),
    keys.idempotency: (["s", "t:d"], "turnpool:{0}:idempotency:s:t:d"),
    keys.newest: ([], "turnpool:{0}:newest"),
    keys.ready: (["q", "t"], "turnpool:{0}:ready:q:t"),
    keys.tenants: (["q"], "turnpool:{0}:tenants:q"),
    keys.service: (["q"], "turnpool:{0}:service:q"),
    keys.queued: (["q"], "turnpool:{0}:queued:q"),
    keys.deadlines: (["q"], "turnpool:{0}:deadlines:q"),
    keys.leases: (["q"], "turnpool:{0}:leases:q"),
    keys.suspects: (["q"], "turnpool:{0}:suspects:q"),
    keys.trials: (["q"], "turnpool:{0}:trials:q"),
    keys.isolation: (["q"], "turnpool:{0}:isolation:q"),
    keys.releasing: (["q"], "turnpool:{0}:releasing:q"),
    keys.unserved: (["q"], "turnpool:{0}:unserved:q"),
    keys.parked: (["q", "a"], "turnpool:{0}:parked:q:a"),
    keys.missing: (["q"], "turnpool:{0}:missing:q"),
    keys.pulse: ([], "turnpool:{0}:pulse"),
    keys.watched: ([], "turnpool:{0}:watched"),
    keys.mark: ([], "turnpool:{0}:mark"),
    keys.worker: (["w"], "turnpool:{0}:worker:w"),
    keys.workers: ([], "turnpool:{0}:workers"),
}
names = pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [(function, *rest) for function, rest in EXPECTED.items()],
    ids=[function.__name__ for function in EXPECTED],
)


def test_every_key_is_tested() -> None:
    """A key function that is added gets its line above."""
    assert set(EXPECTED) == set(keys.ALL)


@names
def test_a_key_has_its_name(function: Callable[..., str], arguments: list[str], expected: str) -> None:
    """The name never changes by accident: what is stored under it would be lost."""
    assert function(P, *arguments) == expected


@names
async def test_lua_gives_the_same_name(
    redis_url: str, function: Callable[..., str], arguments: list[str], expected: str
) -> None:
    """The function's twin in Lua, run by the server, builds the same key."""
    numbered = ", ".join(f"ARGV[{n}]" for n in range(1, len(arguments) + 1))
    call = f"return key_{function.__name__}({numbered})"
    text = f"local P = KEYS[1]\n{keys.lua_functions()}\n{call}"
    async with Redis.from_url(redis_url) as redis:
        assert await redis.eval(text, 1, P, *arguments) == expected.encode()


async def test_a_key_without_a_time_to_live_is_found(redis_url: str) -> None:
    """The check that every test ends with fails for a leaked key, and not for an index or one with a life."""
    async with Redis.from_url(redis_url) as redis:
        await redis.zadd(keys.queued(P, "q"), {"s.1": 1})
        await redis.zadd(keys.workers(P), {"w": 1})
        await redis.set(keys.worker(P, "w"), "{}", ex=10)
        await check_keys(redis)
        await redis.hset(keys.line(P, "default:s"), "n", 1)
        with pytest.raises(AssertionError, match="line:default:s"):
            await check_keys(redis)
        await redis.delete(keys.line(P, "default:s"))


@pytest.mark.parametrize("function", keys.ALL, ids=lambda function: function.__name__)
def test_only_indexes_count_as_indexes(function: Callable[..., str]) -> None:
    """The list of indexes names those whose docstring says so, and no other key by a like beginning."""
    arguments = ["x"] * (function.__code__.co_argcount - 1)
    is_index = function("", *arguments).startswith(keys.INDEXES)
    assert is_index == ("Index." in (function.__doc__ or ""))


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 6, 8, 16, 32, 64])
def test_partitions_are_shared_out_evenly(nodes: int) -> None:
    """Of nodes with equal ranges of slots each has as many partitions as the others, or one more."""
    names = keys.partitions(keys.CLUSTER_PARTITIONS)
    counts = Counter(key_slot(keys.prefix("turnpool", name).encode()) * nodes // 16384 for name in names)
    assert sum(counts.values()) == len(set(names)) == 64
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(counts) == nodes


def test_partitions_stay_what_they_are() -> None:
    """Their names are in the keys that are stored: no other version may find other ones."""
    assert keys.partitions(1) == ("0",)
    names = keys.partitions(keys.CLUSTER_PARTITIONS)
    assert sha256(" ".join(names).encode()).hexdigest()[:16] == "941a27d4000dfe54"
    assert Cluster(parse_url("redis+cluster://h"), "turnpool", 1).prefix_of("a-session") == "turnpool:{133}:"
