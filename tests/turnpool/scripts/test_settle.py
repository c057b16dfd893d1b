"""Ending turns (`lua/settle.lua`)."""

import pytest

from tests.conftest import wait_until
from tests.turnpool.scripts.kit import (
    HELLO,
    MakeTurn,
    completed,
    contents,
    events,
    failed,
    kinds,
    lose,
    record,
    say,
    take,
)
from turnpool import keys
from turnpool.errors import LeaseLostError
from turnpool.events import delta, members
from turnpool.models import Outcome
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_an_ended_turn_has_its_messages_and_events_and_nothing_runs(
    store: Store, new_turn: MakeTurn
) -> None:
    """Last events, terminal event, status, output, usage and messages come in one step."""
    await store.submit(new_turn())
    held = await say(store, await take(store), "h")
    usage = {"input_tokens": 1, "output_tokens": 2}
    outcome = Outcome(
        Status.COMPLETED,
        members(output="hi", usage=usage),
        "hi",
        usage,
        messages=(HELLO, {"role": "assistant", "content": "hi"}),
    )
    assert await store.settle(held, [delta("i")], outcome) == ()
    assert (await kinds(store, "s.1"))[2:] == ["turn.output_text.delta"] * 2 + ["turn.completed"]
    last = (await events(store, "s.1"))[-1]
    assert (last["output"], last["usage"], last["seq"]) == ("hi", usage, 5)
    turn = await record(store, "s.1")
    assert (turn.status, turn.output, turn.usage, turn.worker) == (Status.COMPLETED, "hi", usage, None)
    assert turn.ended_at is not None
    assert await store.messages("s", "default") == [
        {"turn_id": "s.1"} | HELLO,
        {"turn_id": "s.1", "role": "assistant", "content": "hi"},
    ]
    state = await store.queue_state("turns")
    assert (state.queued, state.running) == (0, 0)
    assert (await store.session("s", "default")).active_turn is None


async def test_the_next_turn_of_the_session_becomes_ready(store: Store, new_turn: MakeTurn) -> None:
    """The end of a turn wakes the queue of the turn behind it, which then sees its messages."""
    await store.submit(new_turn())
    await store.submit(new_turn(queue="slow"))
    assert await store.settle(await take(store), [], completed()) == ("slow",)
    claim, _ = await store.claim("slow", "w")
    assert claim is not None
    assert claim.turn.id == "s.2"
    assert [message["content"] for message in claim.messages] == ["hello", "hi"]


async def test_a_repeated_call_settles_once(store: Store, new_turn: MakeTurn) -> None:
    """After a lost answer the worker may call again: no second message, event or promotion."""
    for _ in range(3):
        await store.submit(new_turn())
    held = await take(store)
    await store.settle(held, [delta("hi")], completed())
    frames = await store.frames("s.1", "default", 0)
    assert await store.settle(held, [delta("hi")], completed()) == ()
    assert await store.frames("s.1", "default", 0) == frames
    assert await contents(store) == ["hello", "hi"]
    assert await store.unfinished("s", "default") == [2, 3]


async def test_a_turn_ends_one_way_only(store: Store, new_turn: MakeTurn) -> None:
    """The same attempt can't end a turn in a second state."""
    await store.submit(new_turn())
    held = await take(store)
    await store.settle(held, [], completed())
    with pytest.raises(LeaseLostError):
        await store.settle(held, [], failed())
    assert (await record(store, "s.1")).status is Status.COMPLETED
    assert (await kinds(store, "s.1")).count("turn.failed") == 0


async def test_a_stale_attempt_writes_nothing(store: Store, new_turn: MakeTurn) -> None:
    """A worker that lost the turn can't end it, and its messages never reach the session."""
    await store.submit(new_turn())
    stale = await take(store)
    await lose(store, stale)
    held = await take(store, "w2")
    with pytest.raises(LeaseLostError):
        await store.settle(stale, [delta("x")], completed("stale"))
    await store.settle(held, [], completed("right"))
    with pytest.raises(LeaseLostError):
        await store.settle(stale, [delta("x")], completed("stale"))
    assert await contents(store) == ["hello", "right"]
    assert (await kinds(store, "s.1")).count("turn.completed") == 1
    assert "turn.output_text.delta" not in await kinds(store, "s.1")


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled in progress", "cancelled", "overdue"])
async def test_a_turn_with_an_idempotency_key_is_known_for_a_day(
    settings: Settings, store: Store, new_turn: MakeTurn, end: str
) -> None:
    """As long as its key is, however short sessions and logs live; and its number is not given again."""
    brief = Store(store.nodes, settings.model_copy(update={"session_ttl": 100, "log_ttl": 10}))
    deadline = 0.01 if end == "overdue" else 50.0
    await brief.submit(new_turn(idempotency_key="k", body_digest="d", deadline_seconds=deadline))
    match end:
        case "completed" | "failed":
            await brief.settle(await take(brief), [], completed() if end == "completed" else failed())
        case "cancelled in progress":
            held = await take(brief)
            await brief.cancel("s.1", "default")
            await brief.hand_back(held, [])
        case "cancelled":
            await brief.cancel("s.1", "default")
        case "overdue":

            async def expired() -> bool:
                return bool((await brief.expire("turns"))[0])

            await wait_until(expired)
    assert (await record(brief, "s.1")).status.terminal
    day = 86_400
    assert day - 2 <= await brief.redis.ttl(keys.turn(brief.prefix, "default:s.1")) <= day
    assert day - 2 <= await brief.redis.ttl(keys.idempotency(brief.prefix, "default:s", "k")) <= day
    assert day < await brief.redis.ttl(keys.line(brief.prefix, "default:s"))
    again = await brief.submit(new_turn(idempotency_key="k", body_digest="d"))
    assert (again.turn_id, again.replayed) == ("s.1", True)


async def test_messages_live_as_long_as_what_still_waits(
    settings: Settings, store: Store, new_turn: MakeTurn
) -> None:
    """The end of a turn does not shorten the life of messages that a later turn needs."""
    brief = Store(store.nodes, settings.model_copy(update={"session_ttl": 5, "log_ttl": 5}))
    await brief.submit(new_turn())
    held = await take(brief)
    await brief.submit(new_turn(deadline_seconds=5000))
    await brief.settle(held, [], completed())
    for key in (keys.messages(brief.prefix, "default:s"), keys.session(brief.prefix, "default:s")):
        assert await brief.redis.ttl(key) > 4990, key


async def test_a_failed_turn_has_its_error_and_adds_no_message(store: Store, new_turn: MakeTurn) -> None:
    """Only completed turns, and the partial text of cancelled ones, are part of the conversation."""
    await store.submit(new_turn())
    await store.settle(await take(store), [], failed("provider_error"))
    turn = await record(store, "s.1")
    assert (turn.status, turn.error) == (Status.FAILED, {"code": "provider_error", "message": "no"})
    assert await contents(store) == []


async def test_an_ended_turn_expires_after_its_log(
    settings: Settings, store: Store, new_turn: MakeTurn
) -> None:
    """The log goes first, so that a client can be told its events have expired; the session stays longest."""
    brief = Store(store.nodes, settings.model_copy(update={"session_ttl": 100, "log_ttl": 10}))
    await brief.submit(new_turn())
    held = await take(brief)
    await brief.record_step(held, "a", b"1")
    await brief.settle(held, [], completed())
    lives = {
        keys.log(brief.prefix, "default:s.1"): 10,
        keys.steps(brief.prefix, "default:s.1"): 10,
        keys.turn(brief.prefix, "default:s.1"): 110,
        keys.session(brief.prefix, "default:s"): 100,
        keys.messages(brief.prefix, "default:s"): 100,
    }
    for key, life in lives.items():
        assert life - 2 <= await brief.redis.ttl(key) <= life, key
    # A number is never given again while its turn is known.
    assert await brief.redis.ttl(keys.line(brief.prefix, "default:s")) > 110
