"""Adding events to a running turn (`lua/append.lua`)."""

import asyncio
from typing import Any

import pytest

from tests.turnpool.scripts.kit import MakeTurn, completed, events, kinds, lose, say, take, write
from turnpool import keys
from turnpool.agent import ToolCall, ToolResult
from turnpool.errors import EventsLostError, StoreAwayError
from turnpool.events import data_of, delta, restarted, seq_of, tool
from turnpool.settings import Settings
from turnpool.store.store import Held, Store

pytestmark = pytest.mark.anyio


async def test_ids_are_dense(store: Store, new_turn: MakeTurn) -> None:
    """Events are numbered 1, 2, 3, … over all calls, in the log's ids, frames and data."""
    await store.submit(new_turn())
    held = await take(store)
    held = await say(store, held, "a", "b")
    await say(store, held, "c")
    frames = await store.frames("s.1", "default", 0)
    assert [seq_of(frame) for frame in frames] == [1, 2, 3, 4, 5]
    assert [data_of(frame)["seq"] for frame in frames] == [1, 2, 3, 4, 5]
    entries = await store.redis.xrange(keys.log(store.prefix, "default:s.1"))
    assert [entry for entry, _ in entries] == [b"%d-0" % n for n in range(1, 6)]
    assert await store.frames("s.1", "default", 3) == frames[3:]


async def test_events_carry_what_the_contract_says(store: Store, new_turn: MakeTurn) -> None:
    """Each event has its type, turn, seq, attempt, time and its own fields."""
    await store.submit(new_turn())
    entries = [tool(ToolCall("c1", "sum", {"a": [1]})), tool(ToolResult("c1", 2)), restarted("retry", 0)]
    await write(store, await take(store), delta("hi"), *entries)
    text, call, result, again = (await events(store, "s.1"))[2:]
    assert isinstance(text.pop("created_at"), float)
    common = {"turn_id": "s.1", "attempt": 1}
    assert text == common | {"type": "turn.output_text.delta", "seq": 3, "text": "hi"}
    assert (call["type"], call["call_id"], call["name"], call["arguments"]) == (
        "turn.tool_call",
        "c1",
        "sum",
        {"a": [1]},
    )
    assert (result["type"], result["call_id"], result["output"]) == ("turn.tool_result", "c1", 2)
    assert (again["type"], again["reason"], again["keep"]) == ("turn.restarted", "retry", 0)


async def test_a_repeated_call_adds_nothing(store: Store, new_turn: MakeTurn) -> None:
    """The same call twice, as after a lost answer, gives each event once."""
    await store.submit(new_turn())
    held = await take(store)
    await say(store, held, "a", "b")
    assert await store.append([(held, [delta("a"), delta("b")])]) == [True]
    assert [event.get("text") for event in await events(store, "s.1")] == [None, None, "a", "b"]


async def test_a_call_that_got_half_way_is_completed(store: Store, new_turn: MakeTurn) -> None:
    """Events beyond those that came before are added."""
    await store.submit(new_turn())
    held = await take(store)
    await say(store, held, "a")
    assert await store.append([(held, [delta("a"), delta("b")])]) == [True]
    assert [event.get("text") for event in await events(store, "s.1")][2:] == ["a", "b"]


async def test_a_stale_attempt_is_refused_and_nothing_is_written(store: Store, new_turn: MakeTurn) -> None:
    """Who lost the turn writes nothing, while it waits, while another runs it, after its end."""
    await store.submit(new_turn())
    stale = await take(store)
    await lose(store, stale)
    queued = await store.frames("s.1", "default", 0)
    assert await store.append([(stale, [delta("x")])]) == [False]
    assert await store.frames("s.1", "default", 0) == queued
    held = await take(store, "w2")
    running = await store.frames("s.1", "default", 0)
    assert await store.append([(stale, [delta("x")])]) == [False]
    assert await store.frames("s.1", "default", 0) == running
    await store.settle(held, [], completed())
    ended = await store.frames("s.1", "default", 0)
    assert await store.append([(stale, [delta("x")]), (held, [delta("x")])]) == [False, False]
    assert await store.frames("s.1", "default", 0) == ended


async def test_in_one_call_each_turn_is_fenced_by_itself(store: Store, new_turn: MakeTurn) -> None:
    """A stale attempt in a pipeline does not keep the others from writing."""
    helds = []
    for session in ("a", "b", "c"):
        await store.submit(new_turn(session))
        helds.append(await take(store))
    await lose(store, helds[1])
    assert await store.append([(held, [delta("x")]) for held in helds]) == [True, False, True]
    assert [len(await store.frames(f"{s}.1", "default", 0)) for s in "abc"] == [3, 2, 3]


async def test_while_the_server_is_away_each_turn_is_told(settings: Settings) -> None:
    """On a cluster it may be the server of these turns alone: the others have to go on."""
    away = Store.connect(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))
    replies = await away.append([(Held(f"default:{session}.1", 1, 2), [delta("x")]) for session in "ab"])
    assert [type(reply) for reply in replies] == [StoreAwayError, StoreAwayError]
    await away.close()


async def test_an_unknown_turn_is_refused(store: Store) -> None:
    """A turn that is not there any more is lost, and no log appears."""
    assert await store.append([(Held("default:s.1", 1, 2), [delta("x")])]) == [False]
    assert await store.redis.keys("*") == []


async def test_a_server_that_forgot_the_scripts_is_taught_again(store: Store, new_turn: MakeTurn) -> None:
    """After a restart of the server no call fails, and events of a pipeline come once."""
    await store.submit(new_turn("a"))
    await store.submit(new_turn("b"))
    held_a, held_b = await take(store), await take(store)
    await store.redis.script_flush()
    assert await store.append([(held_a, [delta("x")]), (held_b, [delta("y")])]) == [True, True]
    assert [await kinds(store, f"{s}.1") for s in "ab"] == [
        ["turn.queued", "turn.in_progress", "turn.output_text.delta"]
    ] * 2
    await store.redis.script_flush()
    await store.settle(held_a._replace(seq=3), [], completed())


async def test_events_are_published_as_they_are_logged(
    settings: Settings, store: Store, new_turn: MakeTurn
) -> None:
    """Who listens to the session gets the very bytes of the log, after the turn's number."""
    listener = Store.connect(settings)
    async with listener.redis.pubsub() as pubsub:
        await pubsub.ssubscribe(keys.events(store.prefix, "0", "default:s"))
        await pubsub.get_message(timeout=5)
        await store.submit(new_turn())
        await say(store, await take(store), "a")
        heard: list[Any] = []
        async with asyncio.timeout(5):
            while len(heard) < 3:
                if message := await pubsub.get_message(timeout=1):
                    heard.append(message["data"])
    assert heard == [b"1 " + frame for frame in await store.frames("s.1", "default", 0)]
    await listener.close()


async def test_many_turns_are_written_by_few_calls(
    store: Store, new_turn: MakeTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets its own events and its own answer, the stale and the lost among them."""
    monkeypatch.setattr("turnpool.store.appends.MAX_TURNS", 2)
    held = []
    for n in range(5):
        await store.submit(new_turn(f"s{n}"))
        held.append(await take(store))
    held[1] = held[1]._replace(attempt=7)
    held[3] = held[3]._replace(seq=9)
    before = (await store.redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    replies = await store.append([(each, [delta(f"{n}"), delta("!")]) for n, each in enumerate(held)])
    after = (await store.redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before == 3
    assert [str(reply) if isinstance(reply, Exception) else reply for reply in replies] == [
        True, False, True, str(EventsLostError(held[3].turn_id, 2)), True
    ]  # fmt: skip
    texts = [[event.get("text") for event in await events(store, f"s{n}.1")][2:] for n in range(5)]
    assert texts == [["0", "!"], [], ["2", "!"], [], ["4", "!"]]


async def test_an_error_of_one_turn_touches_that_turn_only(store: Store, new_turn: MakeTurn) -> None:
    """The others of its call get their events, once and in order, and their answers."""
    held = []
    for session in "abc":
        await store.submit(new_turn(session))
        held.append(await take(store))
    spoiled = keys.log(store.prefix, "default:b.1")
    await store.redis.delete(spoiled)
    await store.redis.set(spoiled, "no log", ex=60)
    replies = await store.append([(each, [delta("x"), delta("y")]) for each in held])
    assert [reply if isinstance(reply, bool) else str(reply)[:9] for reply in replies] == [
        True, "WRONGTYPE", True
    ]  # fmt: skip
    for session in "ac":
        assert [event.get("text") for event in await events(store, f"{session}.1")][2:] == ["x", "y"]
