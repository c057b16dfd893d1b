"""Cancelling turns (`lua/cancel.lua`)."""

import pytest

from tests.turnpool.scripts.kit import (
    MakeTurn,
    completed,
    contents,
    events,
    kinds,
    lose,
    record,
    say,
    take,
    worker_info,
)
from turnpool.errors import TurnNotFoundError
from turnpool.states import Status
from turnpool.store.store import Cancelled, Store

pytestmark = pytest.mark.anyio


async def test_a_waiting_turn_ends_at_once(store: Store, new_turn: MakeTurn) -> None:
    """The head of a session ends, and the turn behind it wakes its queue."""
    await store.submit(new_turn())
    await store.submit(new_turn(queue="slow"))
    assert await store.cancel("s.1", "default") == Cancelled("cancelled", ("slow",))
    assert (await record(store, "s.1")).status is Status.CANCELLED
    assert await kinds(store, "s.1") == ["turn.queued", "turn.cancelled"]
    assert (await store.claim("turns", "w"))[0] is None
    assert (await take(store, queue="slow")).turn_id == "default:s.2"
    assert await contents(store) == []


async def test_a_turn_behind_the_head_ends_at_once(store: Store, new_turn: MakeTurn) -> None:
    """It leaves no gap: the turn after it follows the head."""
    for _ in range(3):
        await store.submit(new_turn())
    held = await take(store)
    assert await store.cancel("s.2", "default") == Cancelled("cancelled", ())
    assert await store.unfinished("s", "default") == [1, 3]
    await store.settle(held, [], completed())
    assert (await take(store)).turn_id == "default:s.3"


async def test_a_running_turn_is_marked_for_its_worker(store: Store, new_turn: MakeTurn) -> None:
    """The worker learns of it at its next renewal; until it ends the turn nothing changes."""
    await store.submit(new_turn())
    await take(store)
    assert await store.cancel("s.1", "default") == Cancelled("cancelling", ())
    assert await store.cancel("s.1", "default") == Cancelled("cancelling", ())
    assert (await record(store, "s.1")).status is Status.IN_PROGRESS
    assert await store.renew(worker_info(), [("default:s.1", 1)]) == {"default:s.1/1": "cancelled"}
    assert await kinds(store, "s.1") == ["turn.queued", "turn.in_progress"]


async def test_a_turn_that_waits_again_keeps_what_it_streamed(store: Store, new_turn: MakeTurn) -> None:
    """A turn between two workers is cancelled at once, with its partial text as output and message."""
    await store.submit(new_turn())
    held = await say(store, await take(store), 'a / b\\ "c"\n\0\x7f ', "日本\u2028👋")
    await lose(store, held)
    assert (await store.cancel("s.1", "default")).state == "cancelled"
    text = 'a / b\\ "c"\n\0\x7f 日本\u2028👋'
    assert (await record(store, "s.1")).output == text
    assert (await events(store, "s.1"))[-1]["output"] == text
    assert await contents(store) == ["hello", text]


async def test_an_ended_turn_stays_as_it_is(store: Store, new_turn: MakeTurn) -> None:
    """A cancel that comes too late says so."""
    await store.submit(new_turn())
    await store.settle(await take(store), [], completed())
    assert await store.cancel("s.1", "default") == Cancelled("ended", ())
    assert (await record(store, "s.1")).status is Status.COMPLETED
    assert (await kinds(store, "s.1"))[-1] == "turn.completed"


async def test_unknown_and_foreign_turns_are_not_found(store: Store, new_turn: MakeTurn) -> None:
    """A tenant can't cancel another's turn, nor learn that it is there."""
    await store.submit(new_turn())
    for turn_id, tenant in (("s.2", "default"), ("s.1", "other"), ("nonsense", "default")):
        with pytest.raises(TurnNotFoundError):
            await store.cancel(turn_id, tenant)
    assert (await record(store, "s.1")).status is Status.QUEUED
