"""Taking turns from dead workers (`lua/reap.lua`)."""

import pytest

from tests.conftest import wait_until
from tests.turnpool.scripts.kit import (
    MakeTurn,
    completed,
    contents,
    end_lease,
    events,
    kinds,
    lose,
    pass_deadline,
    record,
    say,
    server_ms,
    take,
    worker_info,
)
from turnpool import keys
from turnpool.models import Reaped
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store.store import Held, Store

pytestmark = pytest.mark.anyio

NOTHING = Reaped((), (), ())


async def test_a_turn_whose_lease_ran_out_goes_back_to_the_queue(store: Store, new_turn: MakeTurn) -> None:
    """The loss is counted, a worker is woken, and the client is told at the next claim."""
    await store.submit(new_turn())
    held = await say(store, await take(store), "half")
    assert await lose(store, held) == Reaped(("default:s.1",), (), ("turns",))
    turn = await record(store, "s.1")
    assert (turn.status, turn.losses, turn.attempt) == (Status.QUEUED, 1, 1)
    assert (await take(store, "w2")).attempt == 2
    told = (await events(store, "s.1"))[3]
    assert (told["type"], told["reason"], told["attempt"]) == ("turn.restarted", "worker_lost", 2)


async def test_a_lease_that_holds_is_left_alone(store: Store, new_turn: MakeTurn) -> None:
    """Only what ran out is taken, and only once."""
    await store.submit(new_turn("a"))
    await store.submit(new_turn("b"))
    await store.submit(new_turn("other", queue="other"))
    lost, _, other = await take(store), await take(store), await take(store, queue="other")
    await end_lease(store, other.turn_id, queue="other")
    assert (await lose(store, lost)).requeued == ("default:a.1",)
    assert await store.reap("turns") == NOTHING


@pytest.mark.slow
async def test_a_lease_runs_out_by_time(store: Store, new_turn: MakeTurn) -> None:
    """A worker that is silent for a lease loses its turn to those that look again and again."""
    await store.submit(new_turn())
    await store.reap("turns")
    started = await server_ms(store)
    await take(store)

    async def requeued() -> bool:
        return (await store.reap("turns")).requeued == ("default:s.1",)

    await wait_until(requeued)
    assert 500 <= await server_ms(store) - started < 1500


async def test_a_turn_lost_too_often_fails(store: Store, new_turn: MakeTurn) -> None:
    """At max_attempts losses the turn ends as worker_lost, and the session goes on."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    for _ in range(2):
        assert (await lose(store, await take(store))).ended == ()
    assert await lose(store, await take(store)) == Reaped((), ("default:s.1",), ("turns",))
    turn = await record(store, "s.1")
    assert (turn.status, turn.losses, turn.error and turn.error["code"]) == (Status.FAILED, 3, "worker_lost")
    assert (await kinds(store, "s.1"))[-1] == "turn.failed"
    assert (await take(store)).turn_id == "default:s.2"


async def test_a_cancelled_turn_ends_as_cancelled_with_its_partial_text(
    store: Store, new_turn: MakeTurn
) -> None:
    """A cancel is kept although the worker that should have seen it died."""
    await store.submit(new_turn())
    held = await say(store, await take(store), "Grüße ", "👋🏽")
    await store.cancel("s.1", "default")
    assert await lose(store, held) == Reaped((), ("default:s.1",), ())
    last = (await events(store, "s.1"))[-1]
    assert (last["type"], last["output"]) == ("turn.cancelled", "Grüße 👋🏽")
    turn = await record(store, "s.1")
    assert (turn.status, turn.output) == (Status.CANCELLED, "Grüße 👋🏽")
    assert (await store.messages("s", "default"))[1:] == [
        {"turn_id": "s.1", "role": "assistant", "content": "Grüße 👋🏽", "status": "incomplete"}
    ]


async def test_a_cancelled_turn_that_said_nothing_leaves_no_message(store: Store, new_turn: MakeTurn) -> None:
    """There is nothing to keep of a turn that had not begun to answer."""
    await store.submit(new_turn())
    held = await take(store)
    await store.cancel("s.1", "default")
    await lose(store, held)
    assert await contents(store) == []


@pytest.mark.slow
async def test_after_a_silence_the_living_renew_before_anything_is_reaped(
    store: Store, new_turn: MakeTurn
) -> None:
    """When nobody was heard for half a lease, as after a restart of Redis, a healthy worker loses nothing."""
    await store.submit(new_turn("healthy"))
    await store.submit(new_turn("dead"))
    held, dead = await take(store), await take(store)
    await end_lease(store, held.turn_id, dead.turn_id)
    pulse = keys.pulse(store.prefix)
    await store.redis.hset(pulse, "at", await server_ms(store) - 251)
    assert await store.reap("turns") == NOTHING
    assert await store.reap("turns") == NOTHING
    assert await store.renew(worker_info(), [("default:healthy.1", 1)]) == {}
    started = await server_ms(store)

    async def dead_is_reaped() -> bool:
        await store.renew(worker_info(), [("default:healthy.1", 1)])
        return (await store.reap("turns")).requeued == ("default:dead.1",)

    await wait_until(dead_is_reaped)
    assert await server_ms(store) - started > 300
    await store.settle(held, [], completed())


async def test_without_a_silence_there_is_no_grace(store: Store, new_turn: MakeTurn) -> None:
    """While others are heard a dead worker's turn is taken at the first look after its lease."""
    await store.submit(new_turn())
    held = await take(store)
    await end_lease(store, held.turn_id)
    await store.redis.hset(keys.pulse(store.prefix), "at", await server_ms(store) - 150)
    assert (await store.reap("turns")).requeued == ("default:s.1",)


@pytest.mark.slow
async def test_a_clock_that_jumped_back_delays_it_by_a_lease_at_most(
    store: Store, new_turn: MakeTurn
) -> None:
    """A grace that was given by the old time would keep dead workers' turns for an hour."""
    await store.submit(new_turn())
    await end_lease(store, (await take(store)).turn_id)
    await store.redis.hset(keys.pulse(store.prefix), "grace", await server_ms(store) + 3_600_000)
    assert await store.reap("turns") == NOTHING

    async def is_reaped() -> bool:
        return (await store.reap("turns")).requeued == ("default:s.1",)

    await wait_until(is_reaped)


async def test_many_dead_turns_are_taken_a_hundred_at_a_time(
    settings: Settings, store: Store, new_turn: MakeTurn
) -> None:
    """A worker with many turns dies: no script is long, and nothing is forgotten."""
    many = Store(store.nodes, settings.model_copy(update={"max_queued": 1000}))
    for n in range(120):
        await many.submit(new_turn(f"s{n}"))
    ids = [(await take(many)).turn_id for _ in range(120)]
    await end_lease(many, *ids)
    first, second, third = [await many.reap("turns") for _ in range(3)]
    assert (len(first.requeued), len(second.requeued), third) == (100, 20, NOTHING)
    assert {*first.requeued, *second.requeued} == set(ids)
    assert len(first.woken) == 100


async def test_a_lease_without_its_turn_is_dropped(store: Store, new_turn: MakeTurn) -> None:
    """An index entry of a turn that is gone goes too, and who is behind it in its session goes on."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    held = await take(store)
    await store.redis.delete(keys.turn(store.prefix, "default:s.1"))
    assert await lose(store, held) == Reaped((), (), ("turns",))
    assert (await store.queue_state("turns")).running == 0
    assert (await take(store)).turn_id == "default:s.2"


async def test_losses_after_progress_do_not_count(store: Store, new_turn: MakeTurn) -> None:
    """A turn that gets on survives any number of workers: with new output in each attempt, or a step."""
    await store.submit(new_turn("said"))
    await store.submit(new_turn("step"))
    for n in range(1, 11):
        said, step = await take(store), await take(store)
        await say(store, said, *"x" * 2**n)
        await store.record_step(step, f"step {n}", b"1")
        assert (await lose(store, said)).requeued == ("default:said.1",)
        assert (await lose(store, step)).requeued == ("default:step.1",)


async def test_a_turn_that_continues_gets_on_with_each_word(store: Store, new_turn: MakeTurn) -> None:
    """What stands is not said again, so one event of output is more than there was."""
    await store.submit(new_turn())
    for n in range(10):
        claim, _ = await store.claim("turns", "w1", ["simulated"])
        assert claim is not None
        held = Held("default:s.1", claim.turn.attempt, claim.turn.seq)
        await say(store, held, "word ")
        assert claim.partial == "word " * n
        assert (await lose(store, held)).requeued == ("default:s.1",)


async def test_the_same_output_again_is_no_progress(store: Store, new_turn: MakeTurn) -> None:
    """A turn that says a word and kills its worker, each time, fails."""
    await store.submit(new_turn())
    for _ in range(3):
        assert (await lose(store, await say(store, await take(store), "word "))).ended == ()
    assert (await lose(store, await say(store, await take(store), "word "))).ended == ("default:s.1",)
    assert (await record(store, "s.1")).losses == 4


async def test_hand_backs_do_not_count(store: Store, new_turn: MakeTurn) -> None:
    """A deploy in between, however often, makes no turn suspect."""
    await store.submit(new_turn())
    for _ in range(5):
        await store.hand_back(await take(store), [])
    assert (await lose(store, await take(store))).requeued == ("default:s.1",)
    assert (await store.queue_state("turns")).suspects == 0


@pytest.mark.parametrize("end", ["cancel", "deadline", "delete"])
async def test_a_suspect_that_waits_can_be_ended(store: Store, new_turn: MakeTurn, end: str) -> None:
    """It waits like any other turn, for its trial."""
    for name in ("a", "b", "c"):
        await store.submit(new_turn(name))
    for _ in range(2):
        held = [await take(store, "w1") for _ in range(3)]
        await end_lease(store, *(one.turn_id for one in held))
        await store.reap("turns")
    state = await store.queue_state("turns")
    assert (state.queued, state.ready, state.suspects) == (3, 1, 2)
    on_trial = await take(store)
    waits = next(name for name in "abc" if f"default:{name}.1" != on_trial.turn_id)
    if end == "cancel":
        assert (await store.cancel(f"{waits}.1", "default")).state == "cancelled"
    elif end == "delete":
        await store.delete_session(waits, "default")
    else:
        await pass_deadline(store, f"{waits}.1")
        assert (await store.expire("turns"))[0] == (f"default:{waits}.1",)
    assert (await store.queue_state("turns")).suspects == 1
    await store.settle(on_trial, [], completed())
    assert (await store.reap("turns")).woken == ("turns",)
    await store.settle(await take(store), [], completed())
    assert await store.redis.zcard(keys.suspects(store.prefix, "turns")) == 0


async def test_a_turn_that_is_proven_guilty_clears_the_others(store: Store, new_turn: MakeTurn) -> None:
    """Those that were lost beside it wait no longer, and their losses are forgiven."""
    for name in ("a", "b", "poison"):
        await store.submit(new_turn(name))
    for _ in range(2):
        held = [await take(store) for _ in range(3)]
        await end_lease(store, *(one.turn_id for one in held))
        await store.reap("turns")
    guilty = await take(store)
    reaped = await lose(store, guilty)
    assert (reaped.ended, reaped.woken) == ((guilty.turn_id,), ("turns", "turns"))
    assert (await store.queue_state("turns")).ready == 2
    assert (await lose(store, await take(store))).ended == ()
