"""Failing turns that waited too long, or whose workers are all gone (`lua/expire.lua`)."""

import pytest

from tests.turnpool.scripts.kit import (
    MakeTurn,
    completed,
    kinds,
    lose,
    pass_deadline,
    record,
    say,
    server_ms,
    take,
)
from turnpool import keys
from turnpool.states import Status
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_only_what_is_past_its_deadline_fails(store: Store, new_turn: MakeTurn) -> None:
    """A waiting turn past its deadline ends with `expired`; its session's next turn wakes a worker."""
    await store.submit(new_turn("late"))
    await store.submit(new_turn("late"))
    await store.submit(new_turn("fresh"))
    await pass_deadline(store, "late.1")
    assert await store.expire("turns") == (("default:late.1",), ("turns",))
    turn = await record(store, "late.1")
    assert (turn.status, turn.error and turn.error["code"]) == (Status.FAILED, "expired")
    assert await kinds(store, "late.1") == ["turn.queued", "turn.failed"]
    assert await store.expire("turns") == ((), ())
    assert (await store.queue_state("turns")).queued == 2


async def test_a_turn_behind_the_head_expires_too(store: Store, new_turn: MakeTurn) -> None:
    """Who waits for the session's running turn may be late as well, and leaves no gap."""
    for _ in range(3):
        await store.submit(new_turn())
    held = await take(store)
    await pass_deadline(store, "s.2")
    assert await store.expire("turns") == (("default:s.2",), ())
    await store.settle(held, [], completed())
    assert (await take(store)).turn_id == "default:s.3"


async def test_a_running_turn_is_left_to_its_worker(store: Store, new_turn: MakeTurn) -> None:
    """The worker ends a running turn at its deadline, with the partial text."""
    await store.submit(new_turn())
    await take(store)
    await store.redis.zadd(keys.deadlines(store.prefix, "turns"), {"default:s.1": 1})
    assert await store.expire("turns") == ((), ())
    assert (await record(store, "s.1")).status is Status.IN_PROGRESS
    assert await store.redis.zcard(keys.deadlines(store.prefix, "turns")) == 0


async def test_a_turn_that_lost_its_worker_fails_with_deadline_exceeded(
    store: Store, new_turn: MakeTurn
) -> None:
    """Expired is for turns that never ran."""
    await store.submit(new_turn())
    await lose(store, await take(store))
    await pass_deadline(store, "s.1")
    assert await store.expire("turns") == (("default:s.1",), ())
    turn = await record(store, "s.1")
    assert turn.error is not None
    assert turn.error["code"] == "deadline_exceeded"


async def outlast(store: Store, *turn_ids: str, lease: int, deadline: int, watched: int = 21_000) -> None:
    """Leases and deadlines of turns ended so many ms ago, and deadlines have been looked after so long."""
    now = await server_ms(store)
    for turn_id in turn_ids:
        await store.redis.hset(keys.turn(store.prefix, turn_id), "deadline_at", now - deadline)
        await store.redis.zadd(keys.leases(store.prefix, "turns"), {turn_id: now - lease}, xx=True)
    await store.redis.set(keys.watched(store.prefix), now - watched, ex=60)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_turn_that_no_worker_is_left_for_ends(
    store: Store, new_turn: MakeTurn, *, cancelled: bool
) -> None:
    """Its lease ran out, and its deadline passed, long ago: nobody else will end it."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    held = await say(store, await take(store), "half")
    if cancelled:
        await store.cancel("s.1", "default")
    for lease, deadline in ((0, 10**9), (10**9, 0), (19_000, 21_000), (21_000, 19_000)):
        await outlast(store, "default:s.1", lease=lease, deadline=deadline)
        assert await store.expire("turns") == ((), ())
    await outlast(store, "default:s.1", lease=21_000, deadline=21_000)
    assert await store.expire("turns") == (("default:s.1",), ("turns",))
    ended = await record(store, "s.1")
    if cancelled:
        assert (ended.status, ended.output) == (Status.CANCELLED, "half")
    else:
        assert ended.error
        assert ended.error["code"] == "deadline_exceeded"
    assert not (await store.append([(held, [])]))[0]
    assert (await take(store)).turn_id == "default:s.2"


async def test_after_a_pause_of_all_looks_workers_come_first(store: Store, new_turn: MakeTurn) -> None:
    """Redis was away: what a worker has finished in time, it has time to tell."""
    await store.submit(new_turn())
    held = await take(store)
    await outlast(store, "default:s.1", lease=60_000, deadline=60_000)
    watched = keys.watched(store.prefix)
    await store.redis.delete(watched)
    now = await server_ms(store)
    assert await store.expire("turns") == ((), ())
    # Looked after since now, until no look comes for seconds.
    since = int(await store.redis.get(watched))
    assert now <= since <= await server_ms(store)
    assert 0 < await store.redis.pttl(watched) <= 10_000
    await store.redis.pexpire(watched, 1000)
    assert await store.expire("turns") == ((), ())
    assert int(await store.redis.get(watched)) == since
    assert await store.redis.pttl(watched) > 1000
    for ago in (19_000, -60_000):
        await outlast(store, "default:s.1", lease=60_000, deadline=60_000, watched=ago)
        assert await store.expire("turns") == ((), ())
    # The clock has jumped back: it counts from now.
    assert int(await store.redis.get(watched)) <= await server_ms(store)
    await store.settle(held, [], completed())
    assert (await record(store, "s.1")).status is Status.COMPLETED


@pytest.mark.slow
async def test_turns_with_time_left_hide_none_that_are_over(store: Store, new_turn: MakeTurn) -> None:
    """More turns without a worker than one look reads, and the one whose deadline passed is the last."""
    others = {f"default:other.{n}": 1 for n in range(2500)}
    async with store.redis.pipeline(transaction=False) as pipeline:
        for turn in (keys.turn(store.prefix, name) for name in others):
            pipeline.hset(turn, "deadline_at", 10**15).expire(turn, 60)
        await pipeline.execute()
    await store.submit(new_turn())
    await take(store)
    await store.redis.zadd(keys.leases(store.prefix, "turns"), others)
    await outlast(store, "default:s.1", lease=21_000, deadline=21_000)
    await store.redis.config_resetstat()
    looks, ended = 0, tuple[str, ...]()
    while not ended and looks < 500:
        ended, _ = await store.expire("turns")
        looks += 1
    assert ended == ("default:s.1",)
    assert (await store.redis.info("commandstats"))["cmdstat_hget"]["calls"] <= 1000 * looks + 10
    await store.redis.delete(keys.leases(store.prefix, "turns"))


async def test_a_turn_that_is_forgotten_leaves_the_line(store: Store, new_turn: MakeTurn) -> None:
    """A turn whose hash has expired is not counted as waiting for ever, and who is behind it goes on."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    await store.redis.delete(keys.turn(store.prefix, "default:s.1"))
    await store.redis.zadd(keys.deadlines(store.prefix, "turns"), {"default:s.1": 1})
    assert await store.expire("turns") == ((), ("turns",))
    assert (await store.queue_state("turns")).queued == 1
    assert await store.redis.zrange(keys.deadlines(store.prefix, "turns"), 0, -1) == [b"default:s.2"]
    assert (await take(store)).turn_id == "default:s.2"
