"""Giving running turns to the other workers (`lua/hand_back.lua`)."""

import pytest

from tests.turnpool.scripts.kit import (
    MakeTurn,
    contents,
    events,
    kinds,
    lose,
    record,
    take,
)
from turnpool import keys
from turnpool.agent import UNDER_WAY
from turnpool.events import delta
from turnpool.states import Status
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_a_turn_handed_back_goes_on_elsewhere_and_no_loss_is_counted(
    store: Store, new_turn: MakeTurn
) -> None:
    """The next worker gets it with what was streamed, and the client is told why it starts again."""
    await store.submit(new_turn())
    held = await take(store)
    assert await store.hand_back(held, [delta("half")]) == ("turns",)
    waiting = await record(store, "s.1")
    assert (waiting.status, waiting.losses, waiting.worker) == (Status.QUEUED, 0, None)
    state = await store.queue_state("turns")
    assert (state.queued, state.running) == (1, 0)
    again = await take(store, "w2")
    assert (again.turn_id, again.attempt) == ("default:s.1", 2)
    assert (await kinds(store, "s.1"))[2:] == [
        "turn.output_text.delta",
        "turn.restarted",
        "turn.in_progress",
    ]
    told = (await events(store, "s.1"))[3]
    assert (told["reason"], told["keep"], told["attempt"]) == ("drained", 0, 2)


async def test_it_keeps_its_place_in_line(store: Store, new_turn: MakeTurn) -> None:
    """A turn handed back is older than what came while it ran, so it is next."""
    await store.submit(new_turn("old"))
    held = await take(store)
    await store.submit(new_turn("new"))
    await store.submit(new_turn("urgent", priority=0))
    await store.hand_back(held, [])
    assert [(await take(store)).turn_id for _ in range(3)] == [
        "default:urgent.1",
        "default:old.1",
        "default:new.1",
    ]


async def test_any_number_of_hand_backs_is_no_failure(store: Store, new_turn: MakeTurn) -> None:
    """A turn survives more deploys than it may lose workers."""
    await store.submit(new_turn())
    for attempt in range(1, 8):
        held = await take(store)
        assert held.attempt == attempt
        await store.hand_back(held, [])
    assert (await record(store, "s.1")).status is Status.QUEUED


async def test_the_same_call_twice_is_harmless(store: Store, new_turn: MakeTurn) -> None:
    """The turn is ready once, and its last events are there once."""
    await store.submit(new_turn())
    held = await take(store)
    await store.hand_back(held, [delta("half")])
    assert await store.hand_back(held, [delta("half")]) == ()
    assert (await kinds(store, "s.1")).count("turn.output_text.delta") == 1
    await take(store)
    assert (await store.claim("turns", "w"))[0] is None


async def test_a_stale_attempt_gives_nothing_back(store: Store, new_turn: MakeTurn) -> None:
    """Who lost the turn can't take it from the worker that has it now."""
    await store.submit(new_turn())
    stale = await take(store)
    await lose(store, stale)
    await take(store, "w2")
    assert await store.hand_back(stale, [delta("x")]) == ()
    turn = await record(store, "s.1")
    assert (turn.status, turn.worker) == (Status.IN_PROGRESS, "w2")
    assert "turn.output_text.delta" not in await kinds(store, "s.1")


async def test_steps_that_were_not_called_are_forgotten(store: Store, new_turn: MakeTurn) -> None:
    """Those named, if they are recorded as under way; a result stands, and so does another attempt's mark."""
    await store.submit(new_turn())
    held = await take(store)
    for name, result in (("not called", UNDER_WAY), ("called", UNDER_WAY), ("ended", b"1")):
        await store.record_step(held, name, result)
    await store.hand_back(held, [delta("half")], ["not called", "ended"])
    steps = keys.steps(store.prefix, "default:s.1")
    assert await store.redis.hgetall(steps) == {b"called": UNDER_WAY, b"ended": b"1"}
    assert (await kinds(store, "s.1")).count("turn.output_text.delta") == 1
    again = await take(store)
    await store.record_step(again, "not called", UNDER_WAY)
    await store.hand_back(held, [], ["not called"])
    assert await store.redis.hget(steps, "not called") == UNDER_WAY


async def test_a_cancelled_turn_ends_instead(store: Store, new_turn: MakeTurn) -> None:
    """A cancel that meets a drain is not put off until another worker has time; the partial text stays."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    held = await take(store)
    await store.cancel("s.1", "default")
    assert await store.hand_back(held, [delta("half")]) == ("turns",)
    assert (await record(store, "s.1")).status is Status.CANCELLED
    assert await contents(store) == ["hello", "half"]
    assert (await take(store)).turn_id == "default:s.2"
