"""Renewing leases (`lua/renew.lua`)."""

import pytest

from tests.turnpool.scripts.kit import (
    MakeTurn,
    completed,
    end_lease,
    lose,
    server_ms,
    take,
    worker_info,
)
from turnpool import keys
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_all_leases_of_a_worker_are_renewed(store: Store, new_turn: MakeTurn) -> None:
    """One call renews them all, even one that has run out but was not reaped; others' are left alone."""
    for session in ("a", "b", "other"):
        await store.submit(new_turn(session))
        await take(store)
    await end_lease(store, "a.1", "default:b.1", "default:other.1")
    assert await store.renew(worker_info(), [("default:a.1", 1), ("default:b.1", 1)]) == {}
    leases = dict(await store.redis.zrange(keys.leases(store.prefix, "turns"), 0, -1, withscores=True))
    soon = await server_ms(store) + 500
    assert leases[b"default:a.1"] == leases[b"default:b.1"] == pytest.approx(soon, abs=250)
    assert leases[b"default:other.1"] == 1
    assert (await store.reap("turns")).requeued == ("default:other.1",)


async def test_the_worker_is_told_what_it_lost(store: Store, new_turn: MakeTurn) -> None:
    """Turns that went back to the queue, to another worker, ended, or are unknown are lost."""
    for session in ("queued", "taken", "ended", "mine"):
        await store.submit(new_turn(session))
    queued, taken, ended, mine = [await take(store) for _ in range(4)]
    await lose(store, taken)
    assert (await take(store, "w2")).turn_id == "default:taken.1"
    await lose(store, queued)
    await store.settle(ended, [], completed())
    held = [(turn.turn_id, turn.attempt) for turn in (queued, taken, ended, mine)]
    assert await store.renew(worker_info(), [*held, ("default:gone.1", 1)]) == {
        "default:queued.1/1": "lost",
        "default:taken.1/1": "lost",
        "default:ended.1/1": "lost",
        "default:gone.1/1": "lost",
    }
    leases = await store.redis.zrange(keys.leases(store.prefix, "turns"), 0, -1)
    assert set(leases) == {b"default:taken.1", b"default:mine.1"}


async def test_the_worker_is_told_what_is_cancelled_and_keeps_the_lease(
    store: Store, new_turn: MakeTurn
) -> None:
    """A cancelled turn is its worker's until it has ended it."""
    await store.submit(new_turn())
    held = await take(store)
    await store.cancel("s.1", "default")
    await end_lease(store, "s.1")
    assert await store.renew(worker_info(), [("default:s.1", 1)]) == {"default:s.1/1": "cancelled"}
    assert (await store.reap("turns")).ended == ()
    await store.settle(held, [], completed())


async def test_two_attempts_of_a_turn_on_one_worker_are_told_apart(store: Store, new_turn: MakeTurn) -> None:
    """A turn that came back to the worker that lost it is lost in its old attempt only."""
    await store.submit(new_turn())
    await lose(store, await take(store))
    await take(store)
    assert await store.renew(worker_info(), [("default:s.1", 1), ("default:s.1", 2)]) == {
        "default:s.1/1": "lost"
    }


async def test_the_workers_that_live_are_listed(store: Store) -> None:
    """A worker is on the list from its first renewal until it leaves or is silent for three leases."""
    await store.renew(worker_info("w1", running=3), [])
    await store.renew(worker_info("w2", draining=True), [])
    assert await store.workers() == [worker_info("w1", running=3), worker_info("w2", draining=True)]
    await store.leave("w1")
    assert await store.workers() == [worker_info("w2", draining=True)]
    assert 0 < await store.redis.pttl(keys.worker(store.prefix, "w2")) <= 1500
    await store.redis.zadd(keys.workers(store.prefix), {"w2": 1})
    await store.renew(worker_info("w3"), [])
    assert await store.redis.zrange(keys.workers(store.prefix), 0, -1) == [b"w3"]
