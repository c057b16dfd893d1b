"""Whose turn is next: tenants by service, then priority, then age (`lua/claim.lua`)."""

from collections import Counter

import pytest

from tests.turnpool.scripts.kit import MakeTurn, completed, take
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def flood(store: Store, new_turn: MakeTurn, tenant: str, count: int, weight: float = 1) -> None:
    """So many turns of a tenant, each in a session of its own."""
    for n in range(count):
        await store.submit(new_turn(f"{tenant}{n}", tenant=tenant, weight=weight))


async def tenants_of(store: Store, count: int) -> list[str]:
    """Whose the next turns are."""
    return [(await take(store)).turn_id[0] for _ in range(count)]


@pytest.mark.slow
async def test_a_flood_does_not_keep_others_waiting(store: Store, new_turn: MakeTurn) -> None:
    """A tenant with 100 turns ahead lets another's three through at once, one of its own between each."""
    await flood(store, new_turn, "a", 100)
    await tenants_of(store, 10)
    await flood(store, new_turn, "b", 3)
    first = await tenants_of(store, 6)
    assert first.count("b") == 3
    assert set(await tenants_of(store, 87)) == {"a"}


async def test_many_tenants_share_alike(store: Store, new_turn: MakeTurn) -> None:
    """Whatever each has waiting, in any stretch all get the same."""
    for tenant, count in (("a", 40), ("b", 20), ("c", 10)):
        await flood(store, new_turn, tenant, count)
    assert Counter(await tenants_of(store, 30)) == {"a": 10, "b": 10, "c": 10}
    assert Counter(await tenants_of(store, 20)) == {"a": 10, "b": 10}


async def test_weights_are_respected(store: Store, new_turn: MakeTurn) -> None:
    """A tenant of weight 2 gets two turns for each of another's."""
    await flood(store, new_turn, "a", 40, weight=2)
    await flood(store, new_turn, "b", 40)
    served = await tenants_of(store, 30)
    assert Counter(served) == {"a": 20, "b": 10}
    for start in range(0, 30, 6):
        assert Counter(served[start : start + 6]) == {"a": 4, "b": 2}


async def test_within_a_tenant_priority_then_age_decides(store: Store, new_turn: MakeTurn) -> None:
    """The lower number first; of the same, the older."""
    for n, priority in enumerate([5, 9, 0, 5, 0, 9, 5]):
        await store.submit(new_turn(f"s{n}", priority=priority))
    order = [(await take(store)).turn_id for _ in range(7)]
    assert order == [f"default:s{n}.1" for n in (2, 4, 0, 3, 6, 1, 5)]


async def test_priority_does_not_reach_beyond_the_tenant(store: Store, new_turn: MakeTurn) -> None:
    """A tenant can't pass others by calling all of its turns urgent."""
    for n in range(4):
        await store.submit(new_turn(f"a{n}", tenant="a", priority=0))
        await store.submit(new_turn(f"b{n}", tenant="b", priority=9))
    assert Counter(await tenants_of(store, 4)) == {"a": 2, "b": 2}


async def test_a_pause_earns_no_credit(store: Store, new_turn: MakeTurn) -> None:
    """A tenant that was away while another was served gets its share from now on, not what it missed."""
    await flood(store, new_turn, "b", 1)
    await tenants_of(store, 1)
    await flood(store, new_turn, "a", 60)
    await tenants_of(store, 40)
    await flood(store, new_turn, "b", 20)
    await store.submit(new_turn("b20", tenant="b"))
    assert Counter(await tenants_of(store, 10))["b"] in {4, 5, 6}


async def test_a_burst_is_no_debt_for_good(store: Store, new_turn: MakeTurn) -> None:
    """A tenant that was alone, and served much, does not wait until a new one has had as much."""
    await flood(store, new_turn, "a", 60)
    await tenants_of(store, 40)
    await flood(store, new_turn, "b", 40)
    assert Counter(await tenants_of(store, 20)) == {"a": 10, "b": 10}


async def test_long_sessions_share_alike_too(store: Store, new_turn: MakeTurn) -> None:
    """A tenant whose turns wait behind each other in one session is served as often as others."""
    for _ in range(10):
        await store.submit(new_turn("b", tenant="b"))
    await flood(store, new_turn, "a", 20)
    served = []
    for _ in range(10):
        held = await take(store)
        served.append(held.turn_id[0])
        await store.settle(held, [], completed())
    assert Counter(served) == {"a": 5, "b": 5}
