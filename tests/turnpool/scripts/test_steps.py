"""Recording steps (`lua/record_step.lua`)."""

import pytest

from tests.turnpool.scripts.kit import MakeTurn, completed, lose, take
from turnpool import keys
from turnpool.agent import UNDER_WAY
from turnpool.errors import LeaseLostError
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_the_first_result_stands(store: Store, new_turn: MakeTurn) -> None:
    """A step that is recorded twice keeps its first result, and both callers get it."""
    await store.submit(new_turn())
    held = await take(store)
    assert await store.record_step(held, "a", b"1") == b"1"
    assert await store.record_step(held, "a", b"2") == b"1"
    assert await store.record_step(held, "b", b"\xff\x00") == b"\xff\x00"
    assert await store.redis.ttl(keys.steps(store.prefix, "default:s.1")) > 600


async def test_a_step_under_way_gets_its_result_once(store: Store, new_turn: MakeTurn) -> None:
    """Nothing (empty) is recorded while it runs, and takes no result away."""
    await store.submit(new_turn())
    held = await take(store)
    assert await store.record_step(held, "a", UNDER_WAY) == UNDER_WAY
    assert await store.record_step(held, "a", UNDER_WAY) == UNDER_WAY
    assert await store.record_step(held, "a", b"1") == b"1"
    assert await store.record_step(held, "a", b"2") == b"1"
    assert await store.record_step(held, "a", UNDER_WAY) == b"1"


async def test_who_only_looks_records_nothing(store: Store, new_turn: MakeTurn) -> None:
    """It gets what is recorded, nothing (empty) if a step is unknown or under way."""
    await store.submit(new_turn())
    held = await take(store)
    assert await store.record_step(held, "a", None) == b""
    assert not await store.redis.exists(keys.steps(store.prefix, "default:s.1"))
    await store.record_step(held, "a", UNDER_WAY)
    assert await store.record_step(held, "a", None) == UNDER_WAY
    await store.record_step(held, "a", b"1")
    assert await store.record_step(held, "a", None) == b"1"
    await lose(store, held)
    with pytest.raises(LeaseLostError):
        await store.record_step(held, "a", None)


async def test_a_stale_attempt_records_nothing(store: Store, new_turn: MakeTurn) -> None:
    """Who lost the turn can't set what the next attempt is given; nor can anyone after its end."""
    await store.submit(new_turn())
    stale = await take(store)
    await lose(store, stale)
    with pytest.raises(LeaseLostError):
        await store.record_step(stale, "a", b"stale")
    held = await take(store, "w2")
    with pytest.raises(LeaseLostError):
        await store.record_step(stale, "a", b"stale")
    assert await store.record_step(held, "a", b"right") == b"right"
    await store.settle(held, [], completed())
    with pytest.raises(LeaseLostError):
        await store.record_step(held, "b", b"late")
    assert await store.redis.hgetall(keys.steps(store.prefix, "default:s.1")) == {b"a": b"right"}
