"""Failing turns that waited too long (`lua/expire.lua`)."""

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
from turnpool.store import Store

pytestmark = pytest.mark.anyio


async def test_only_what_is_past_its_deadline_fails(store: Store, new_turn: MakeTurn) -> None:
    """A waiting turn past its deadline ends with `expired`; its session's next turn wakes a worker."""
    await store.submit(new_turn("late"))
    await store.submit(new_turn("late"))
    await store.submit(new_turn("fresh"))
    await pass_deadline(store, "late.1")
    assert await store.expire("turns") == (("late.1",), ("turns",))
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
    assert await store.expire("turns") == (("s.2",), ())
    await store.settle(held, [], completed())
    assert (await take(store)).turn_id == "s.3"


async def test_a_running_turn_is_left_to_its_worker(store: Store, new_turn: MakeTurn) -> None:
    """The worker ends a running turn at its deadline, with the partial text."""
    await store.submit(new_turn())
    await take(store)
    await store.redis.zadd(keys.deadlines(store.prefix, "turns"), {"s.1": 1})
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
    assert await store.expire("turns") == (("s.1",), ())
    turn = await record(store, "s.1")
    assert turn.error is not None
    assert turn.error["code"] == "deadline_exceeded"


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
    leases, turn, now = (
        keys.leases(store.prefix, "turns"),
        keys.turn(store.prefix, "s.1"),
        await server_ms(store),
    )
    for lease, deadline in ((now, 1), (1, now), (now - 19_000, now - 21_000), (now - 21_000, now - 19_000)):
        await store.redis.zadd(leases, {"s.1": lease})
        await store.redis.hset(turn, "deadline_at", deadline)
        assert await store.expire("turns") == ((), ())
    await store.redis.zadd(leases, {"s.1": now - 21_000})
    await store.redis.hset(turn, "deadline_at", now - 21_000)
    assert await store.expire("turns") == (("s.1",), ("turns",))
    ended = await record(store, "s.1")
    if cancelled:
        assert (ended.status, ended.output) == (Status.CANCELLED, "half")
    else:
        assert ended.error
        assert ended.error["code"] == "deadline_exceeded"
    assert not (await store.append([(held, [])]))[0]
    assert (await take(store)).turn_id == "s.2"


async def test_a_turn_that_is_forgotten_leaves_the_line(store: Store, new_turn: MakeTurn) -> None:
    """A turn whose hash has expired is not counted as waiting for ever, and who is behind it goes on."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    await store.redis.delete(keys.turn(store.prefix, "s.1"))
    await store.redis.zadd(keys.deadlines(store.prefix, "turns"), {"s.1": 1})
    assert await store.expire("turns") == ((), ("turns",))
    assert (await store.queue_state("turns")).queued == 1
    assert await store.redis.zrange(keys.deadlines(store.prefix, "turns"), 0, -1) == [b"s.2"]
    assert (await take(store)).turn_id == "s.2"
