"""Accepting turns (`lua/submit.lua`)."""

import pytest

from tests.turnpool.scripts.kit import (
    MakeTurn,
    completed,
    contents,
    end_lease,
    events,
    kinds,
    lose,
    record,
    say,
    take,
)
from turnpool import keys
from turnpool.errors import (
    IdempotencyMismatchError,
    QueueFullError,
    SessionBusyError,
    SessionFullError,
)
from turnpool.models import OnBusy
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store.store import Store
from turnpool.store.wakeups import message

pytestmark = pytest.mark.anyio


async def test_the_first_turn_is_ready_and_the_second_waits_behind_it(
    store: Store, new_turn: MakeTurn
) -> None:
    """Of two turns of a session only the first wakes a worker."""
    first = await store.submit(new_turn())
    second = await store.submit(new_turn())
    assert (first.turn_id, first.woken) == ("s.1", ("turns",))
    assert (second.turn_id, second.woken) == ("s.2", ())


async def test_a_wake_up_that_comes_along_is_put_into_the_queues_list(
    store: Store, new_turn: MakeTurn
) -> None:
    """Once, as the oldest are, and only for a turn that is ready; then nobody else has to wake a worker."""
    wake_ups = [message("turnpool:turns") for _ in range(3)]
    for session, wake_up in zip(("s", "s", "t"), wake_ups, strict=True):
        assert (await store.submit(new_turn(session_id=session, wake_up=wake_up))).woken == ()
    assert await store.redis.lrange("turnpool:turns", 0, -1) == [wake_ups[2], wake_ups[0]]


async def test_a_list_that_cannot_be_written_refuses_no_turn(store: Store, new_turn: MakeTurn) -> None:
    """The turn is whole; its wake-up is left to the caller, who warns if he cannot either."""
    await store.redis.set("turnpool:turns", "no list", ex=60)
    assert (await store.submit(new_turn(wake_up=message("turnpool:turns")))).woken == ("turns",)
    assert await kinds(store, "s.1") == ["turn.queued"]


async def test_everything_posted_is_stored(store: Store, new_turn: MakeTurn) -> None:
    """What a turn was posted with is what is read of it."""
    new = new_turn(params={"a": [1, None]}, metadata={"b": "ü"}, priority=3, agent="chat")
    await store.submit(new)
    turn = await record(store, "s.1")
    assert (turn.params, turn.metadata, turn.priority, turn.agent) == (
        {"a": [1, None]},
        {"b": "ü"},
        3,
        "chat",
    )
    assert (turn.status, turn.attempt, turn.losses, turn.input) == (Status.QUEUED, 0, 0, new.input)
    assert turn.deadline_at - turn.created_at == pytest.approx(60)
    assert (turn.started_at, turn.ended_at, turn.worker, turn.output, turn.error) == (None,) * 5


async def test_input_may_hold_every_kind_of_line_end(store: Store, new_turn: MakeTurn) -> None:
    """Characters that some take for line ends do not tear an input apart."""
    message = {"role": "user", "content": "a\nb\r\nc\u2028d\u2029e\x85f\x0bg\x0ch\x1ci\0j"}
    await store.submit(new_turn(input=[message, message]))
    claim, _ = await store.claim("turns", "w")
    assert claim is not None
    assert claim.turn.input == [message, message]


async def test_position_counts_what_is_ahead(store: Store, new_turn: MakeTurn) -> None:
    """The first event says how many turns are ahead, the session's running one among them."""
    await store.submit(new_turn("other"))
    await store.submit(new_turn())
    assert (await events(store, "s.1"))[0]["position"] == 1
    await take(store)
    await take(store)
    await store.submit(new_turn())
    assert (await events(store, "s.2"))[0]["position"] == 1


async def test_reject_refuses_a_turn_while_another_has_not_ended(store: Store, new_turn: MakeTurn) -> None:
    """on_busy reject names the turn that is in the way, and nothing is queued."""
    await store.submit(new_turn())
    with pytest.raises(SessionBusyError) as raised:
        await store.submit(new_turn(on_busy=OnBusy.REJECT))
    assert raised.value.turn_id == "s.1"
    assert (await store.queue_state("turns")).queued == 1
    await store.settle(await take(store), [], completed())
    assert (await store.submit(new_turn(on_busy=OnBusy.REJECT))).turn_id == "s.2"


async def test_interrupt_cancels_all_that_waits_and_is_ready_at_once(
    store: Store, new_turn: MakeTurn
) -> None:
    """With nothing running, the interrupting turn takes the place of all turns of its session."""
    for _ in range(3):
        await store.submit(new_turn())
    accepted = await store.submit(new_turn(on_busy=OnBusy.INTERRUPT))
    assert (accepted.turn_id, accepted.woken) == ("s.4", ("turns",))
    for n in (1, 2, 3):
        assert (await record(store, f"s.{n}")).status is Status.CANCELLED
    assert (await take(store)).turn_id == "default:s.4"


async def test_interrupt_marks_the_running_turn_and_waits_for_its_end(
    store: Store, new_turn: MakeTurn
) -> None:
    """The running turn keeps its place until its worker ends it; what waited behind it is gone."""
    await store.submit(new_turn())
    held = await take(store)
    await store.submit(new_turn())
    accepted = await store.submit(new_turn(on_busy=OnBusy.INTERRUPT))
    assert accepted.woken == ()
    assert await store.unfinished("s", "default") == [1, 3]
    assert await store.redis.hget(keys.turn(store.prefix, "default:s.1"), "cancel") == b"1"
    assert await store.settle(held, [], completed()) == ("turns",)
    assert (await take(store)).turn_id == "default:s.3"


async def test_interrupt_keeps_the_partial_answer_of_a_turn_that_lost_its_worker(
    store: Store, new_turn: MakeTurn
) -> None:
    """A cancelled turn that had streamed leaves its input and its incomplete answer in the session."""
    await store.submit(new_turn())
    held = await take(store)
    await say(store, held, "half an ans")
    await lose(store, held)
    await store.submit(new_turn(on_busy=OnBusy.INTERRUPT))
    assert await contents(store) == ["hello", "half an ans"]
    assert (await store.messages("s", "default"))[1]["status"] == "incomplete"


async def test_the_same_key_and_body_give_the_same_turn(store: Store, new_turn: MakeTurn) -> None:
    """A repeated post makes no second turn, even if the session is busy by then."""
    posted = {"idempotency_key": "k", "body_digest": "d", "on_busy": OnBusy.REJECT}
    first = await store.submit(new_turn(**posted))
    again = await store.submit(new_turn(**posted))
    assert (again.turn_id, again.replayed, again.woken) == (first.turn_id, True, ())
    assert (await store.queue_state("turns")).queued == 1


async def test_the_same_key_with_another_body_is_refused(store: Store, new_turn: MakeTurn) -> None:
    """A key names one body."""
    await store.submit(new_turn(idempotency_key="k", body_digest="d"))
    with pytest.raises(IdempotencyMismatchError):
        await store.submit(new_turn(idempotency_key="k", body_digest="other"))


async def test_a_key_counts_in_its_session_only(store: Store, new_turn: MakeTurn) -> None:
    """The same key in another session is another key, and it goes with its session."""
    await store.submit(new_turn("a", idempotency_key="k", body_digest="d"))
    assert not (await store.submit(new_turn("b", idempotency_key="k", body_digest="d"))).replayed
    await store.delete_session("a", "default")
    assert not (await store.submit(new_turn("a", idempotency_key="k", body_digest="e"))).replayed


async def test_a_full_queue_refuses(settings: Settings, store: Store, new_turn: MakeTurn) -> None:
    """Beyond max_queued nothing is accepted, and a free place is noticed."""
    small = Store(store.nodes, settings.model_copy(update={"max_queued": 2}))
    await small.submit(new_turn("a"))
    await small.submit(new_turn("b"))
    with pytest.raises(QueueFullError):
        await small.submit(new_turn("c"))
    await small.submit(new_turn("c", queue="other"))
    await take(small)
    await small.submit(new_turn("d"))


async def test_a_full_session_refuses(settings: Settings, store: Store, new_turn: MakeTurn) -> None:
    """Beyond max_session_queued behind the head a session takes no more, other sessions do."""
    small = Store(store.nodes, settings.model_copy(update={"max_session_queued": 2}))
    for _ in range(3):
        await small.submit(new_turn())
    with pytest.raises(SessionFullError):
        await small.submit(new_turn())
    await small.submit(new_turn("other"))
    assert (await small.submit(new_turn(on_busy=OnBusy.INTERRUPT))).turn_id == "s.4"


async def test_a_refused_turn_leaves_nothing(settings: Settings, store: Store, new_turn: MakeTurn) -> None:
    """A refused post changes no key: no number is used up, no session is made."""
    small = Store(store.nodes, settings.model_copy(update={"max_queued": 1}))
    await small.submit(new_turn("a"))
    before = sorted(await store.redis.keys("*"))
    with pytest.raises(QueueFullError):
        await small.submit(new_turn("b", idempotency_key="k", body_digest="d"))
    assert sorted(await store.redis.keys("*")) == before


async def test_a_short_turn_does_not_shorten_the_life_of_the_session(
    settings: Settings, store: Store, new_turn: MakeTurn
) -> None:
    """A session outlives its longest turn, whatever comes or ends after it."""
    brief = Store(store.nodes, settings.model_copy(update={"session_ttl": 5, "log_ttl": 5}))
    await brief.submit(new_turn(deadline_seconds=5000))
    held = await take(brief)
    await brief.submit(new_turn(deadline_seconds=1))
    await brief.cancel("s.2", "default")
    for key in (keys.session(brief.prefix, "default:s"), keys.line(brief.prefix, "default:s")):
        assert await brief.redis.ttl(key) > 4990, key
    await end_lease(brief)
    assert await brief.settle(held, [], completed()) == ()
    assert await contents(brief) == ["hello", "hi"]


async def test_a_session_whose_head_is_forgotten_goes_on(store: Store, new_turn: MakeTurn) -> None:
    """A turn that waited longer than it is kept does not block those behind it for good."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    await store.redis.delete(keys.turn(store.prefix, "default:s.1"))
    assert (await store.submit(new_turn())).woken == ("turns",)
    assert (await take(store)).turn_id == "default:s.2"
