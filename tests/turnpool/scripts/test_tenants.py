"""Each tenant has its own session ids: no other tenant sees or affects what is under them."""

from collections.abc import Awaitable, Callable

import pytest

from tests.turnpool.scripts.kit import MakeTurn, completed, say, stored, take
from turnpool.errors import LogExpiredError, SessionNotFoundError, TurnNotFoundError
from turnpool.models import OnBusy
from turnpool.store.store import Store

Call = Callable[[Store], Awaitable[object]]

FOREIGN: dict[str, Call] = {
    "session": lambda store: store.session("s", "b"),
    "delete": lambda store: store.delete_session("s", "b"),
    "turns": lambda store: store.turns("s", "b", 10, None),
    "turn": lambda store: store.turn("s.1", "b"),
    "progress": lambda store: store.progress("s.1", "b"),
    "log": lambda store: store.check_log("s.1", "b"),
    "cancel": lambda store: store.cancel("s.1", "b"),
}
EMPTY: dict[str, Call] = {
    "messages": lambda store: store.messages("s", "b"),
    "frames": lambda store: store.frames("s.1", "b", 0),
    "newest": lambda store: store.newest("s", "b"),
    "unfinished": lambda store: store.unfinished("s", "b"),
}


async def answered_by_a(store: Store, new_turn: MakeTurn) -> None:
    """Tenant a has a session with a turn that ended and one that runs."""
    await store.submit(new_turn(tenant="a"))
    await store.settle(await take(store), [], completed("a's"))
    await store.submit(new_turn(tenant="a"))
    await say(store, await take(store), "more of a's")


@pytest.mark.parametrize("call", FOREIGN.values(), ids=FOREIGN)
async def test_nothing_of_another_tenant_is_found(store: Store, new_turn: MakeTurn, call: Call) -> None:
    """Reads, cancels and deletes under the same ids find nothing, and change nothing."""
    await answered_by_a(store, new_turn)
    with pytest.raises((SessionNotFoundError, TurnNotFoundError)):
        await call(store)
    assert len(await store.messages("s", "a")) == 2
    assert await store.unfinished("s", "a") == [2]


@pytest.mark.parametrize("call", EMPTY.values(), ids=EMPTY)
async def test_nothing_of_another_tenant_is_read(store: Store, new_turn: MakeTurn, call: Call) -> None:
    """Lists under the same ids are empty."""
    await answered_by_a(store, new_turn)
    assert not await call(store)


async def test_two_tenants_use_the_same_ids(store: Store, new_turn: MakeTurn) -> None:
    """Sessions, numbers, messages, lists and logs are each tenant's own."""
    for tenant in "ab":
        await store.create_session("s", tenant, {"of": tenant})
        assert (await store.submit(new_turn(tenant=tenant))).turn_id == "s.1"
    for _ in "ab":
        held = await take(store)
        await store.settle(held, [], completed(held.turn_id))
    for tenant in "ab":
        assert (await store.session("s", tenant)).metadata == {"of": tenant}
        assert (await store.messages("s", tenant))[1]["content"] == f"{tenant}:s.1"
        assert [session.id for session in (await store.sessions(tenant, 10, None))[0]] == ["s"]
        assert (await store.turn("s.1", tenant)).output == f"{tenant}:s.1"
        assert all(b'"turn_id":"s.1"' in frame for frame in await store.frames("s.1", tenant, 0))


async def test_one_tenants_session_does_not_hold_up_anothers(store: Store, new_turn: MakeTurn) -> None:
    """Order, interrupts, busy sessions and idempotency keys stay within the tenant."""
    await store.submit(new_turn(tenant="a", idempotency_key="k", body_digest="1"))
    posted = await store.submit(
        new_turn(tenant="b", idempotency_key="k", body_digest="2", on_busy=OnBusy.REJECT)
    )
    assert not posted.replayed
    assert {(await take(store)).turn_id for _ in "ab"} == {"a:s.1", "b:s.1"}
    await store.submit(new_turn(tenant="b", on_busy=OnBusy.INTERRUPT))
    turn, p = stored("a:s.1"), store.prefix
    assert await store.redis.hget(f"{p}turn:{turn}", "cancel") is None


async def test_deleting_one_tenants_session_leaves_anothers(store: Store, new_turn: MakeTurn) -> None:
    """The ids are the same, what is deleted is one tenant's."""
    await answered_by_a(store, new_turn)
    await store.submit(new_turn(tenant="b"))
    await store.delete_session("s", "b")
    assert len(await store.messages("s", "a")) == 2
    with pytest.raises((TurnNotFoundError, LogExpiredError)):
        await store.check_log("s.1", "b")
    await store.check_log("s.1", "a")
