"""Taking turns (`lua/claim.lua`)."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.turnpool.scripts.kit import (
    HELLO,
    MakeTurn,
    completed,
    events,
    kinds,
    lose,
    pass_deadline,
    record,
    say,
    server_ms,
    take,
    write,
)
from turnpool import keys
from turnpool.events import delta, restarted
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store.store import Held, Store

pytestmark = pytest.mark.anyio


async def test_nothing_ready_gives_none(store: Store) -> None:
    """A wake-up that finds no turn is harmless."""
    assert await store.claim("turns", "w1") == (None, ())


async def test_a_claim_counts_the_attempt_and_sets_the_lease(store: Store, new_turn: MakeTurn) -> None:
    """The turn runs: attempt, worker, start, lease of the settings' length, no longer in line."""
    await store.submit(new_turn())
    before = await server_ms(store)
    claim, woken = await store.claim("turns", "w1")
    after = await server_ms(store)
    assert claim is not None
    assert woken == ()
    turn = claim.turn
    assert (turn.id, turn.attempt, turn.status, turn.worker) == ("s.1", 1, Status.IN_PROGRESS, "w1")
    assert turn == await record(store, "s.1")
    assert turn.started_at is not None
    assert before <= turn.started_at * 1000 <= after
    assert claim.remaining_seconds == pytest.approx(60, abs=0.5)
    lease = await store.redis.zscore(keys.leases(store.prefix, "turns"), "default:s.1")
    assert before + 500 <= lease <= after + 500
    assert ((await store.queue_state("turns")).queued, (await store.queue_state("turns")).running) == (0, 1)
    assert (await events(store, "s.1"))[1]["worker"] == "w1"


async def test_a_second_claim_finds_nothing(store: Store, new_turn: MakeTurn) -> None:
    """A running turn is nobody else's, nor is the one behind it, nor another queue's."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    await take(store)
    assert (await store.claim("turns", "w2"))[0] is None
    assert (await store.claim("other", "w2"))[0] is None


async def test_a_claim_brings_the_messages_and_the_recorded_steps(store: Store, new_turn: MakeTurn) -> None:
    """A worker gets all it needs in one round trip: earlier messages, and what earlier attempts recorded."""
    await store.submit(new_turn())
    await store.settle(await take(store), [], completed("first"))
    await store.submit(new_turn())
    held = await take(store)
    await store.record_step(held, "look up", b'{"found":1}')
    await lose(store, held)
    claim, _ = await store.claim("turns", "w2")
    assert claim is not None
    assert claim.messages == [
        {"turn_id": "s.1"} | HELLO,
        {"turn_id": "s.1", "role": "assistant", "content": "first"},
    ]
    assert claim.steps == {"look up": b'{"found":1}'}
    assert (claim.turn.attempt, claim.turn.losses) == (2, 1)


async def test_a_turn_past_its_deadline_fails_and_the_next_is_taken(store: Store, new_turn: MakeTurn) -> None:
    """What waited too long fails with `expired`; its session's next turn wakes a worker."""
    for session in ("late", "fresh", "late"):
        await store.submit(new_turn(session))
    await pass_deadline(store, "late.1")
    claim, woken = await store.claim("turns", "w1")
    assert claim is not None
    assert (claim.turn.id, woken) == ("fresh.1", ("turns",))
    turn = await record(store, "late.1")
    assert (turn.status, turn.error and turn.error["code"]) == (Status.FAILED, "expired")
    assert await kinds(store, "late.1") == ["turn.queued", "turn.failed"]
    assert (await take(store)).turn_id == "default:late.2"


async def test_a_turn_that_has_run_fails_with_deadline_exceeded(store: Store, new_turn: MakeTurn) -> None:
    """Expired is for turns that never ran."""
    await store.submit(new_turn())
    await lose(store, await take(store))
    await pass_deadline(store, "s.1")
    assert (await store.claim("turns", "w1"))[0] is None
    turn = await record(store, "s.1")
    assert turn.error is not None
    assert turn.error["code"] == "deadline_exceeded"


async def test_a_turn_whose_hash_is_gone_is_passed_over(store: Store, new_turn: MakeTurn) -> None:
    """An index entry without its turn does not stop the queue."""
    await store.submit(new_turn("a"))
    await store.submit(new_turn("b"))
    await store.redis.delete(keys.turn(store.prefix, "default:a.1"))
    assert (await take(store)).turn_id == "default:b.1"


async def test_a_session_whose_running_turn_is_forgotten_goes_on(store: Store, new_turn: MakeTurn) -> None:
    """Nobody came for hours; who comes at last wakes a worker for the turn behind it."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    await store.redis.delete(keys.turn(store.prefix, "default:s.1"))
    claim, woken = await store.claim("turns", "w1")
    assert claim is not None
    assert (claim.turn.id, woken) == ("s.2", ("turns",))


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_claim_whose_answer_is_lost_is_made_again(
    store: Store, new_turn: MakeTurn, monkeypatch: pytest.MonkeyPatch, *, carried_out: bool
) -> None:
    """The worker gets the turn that it had been given; no attempt is counted twice, no event comes twice."""
    for session in ("a", "b"):
        await store.submit(new_turn(session))
    await take(store)
    await lose(store, await say(store, await take(store), "one "))
    execute, calls = store.nodes._execute, 0

    async def lossy(prefix: str, *command: Any) -> Any:
        nonlocal calls
        calls += 1
        if carried_out or calls > 1:
            reply = await execute(prefix, *command)
        if calls == 1:
            raise RedisConnectionError("the answer was lost")
        return reply

    monkeypatch.setattr(store.nodes, "_execute", lossy)
    claim, _ = await store.claim("turns", "w1", ["simulated"])
    assert claim is not None
    assert calls == 2
    assert (claim.turn.id, claim.turn.attempt, claim.partial, claim.turn.seq) == ("b.1", 2, "one ", 5)
    assert await kinds(store, "b.1") == [
        "turn.queued", "turn.in_progress", "turn.output_text.delta", "turn.restarted", "turn.in_progress",
    ]  # fmt: skip
    assert (await store.claim("turns", "w1"))[0] is None


@pytest.mark.slow
async def test_racing_workers_take_each_turn_once(settings: Settings, new_turn: MakeTurn) -> None:
    """Many workers on connections of their own: every turn is claimed exactly once, in attempt 1."""
    stores = [Store.connect(settings) for _ in range(8)]
    for n in range(100):
        await stores[0].submit(new_turn(f"s{n}", tenant=f"t{n % 7}"))

    async def claim_all(worker: int) -> list[tuple[str, int]]:
        taken = []
        while claim := (await stores[worker % 8].claim("turns", f"w{worker}"))[0]:
            taken.append((claim.turn.id, claim.turn.attempt))
        return taken

    taken = await asyncio.gather(*map(claim_all, range(32)))
    assert sum(1 for turns in taken if turns) > 1
    assert Counter(pair for turns in taken for pair in turns) == {(f"s{n}.1", 1): 1 for n in range(100)}
    for store in stores:
        await store.close()


@pytest.mark.slow
async def test_racing_workers_never_run_two_turns_of_a_session(
    settings: Settings, new_turn: MakeTurn
) -> None:
    """Workers that claim and settle as fast as they can keep each session's order."""
    stores = [Store.connect(settings) for _ in range(8)]
    for n in range(60):
        await stores[0].submit(new_turn(f"s{n % 3}"))
    running: Counter[str] = Counter()
    order: dict[str, list[int]] = {"s0": [], "s1": [], "s2": []}
    left = 60

    async def work(store: Store) -> None:
        nonlocal left
        while left:
            claim, _ = await store.claim("turns", "w")
            if claim is None:
                continue
            session = claim.turn.session_id
            running[session] += 1
            assert running[session] == 1
            order[session].append(int(claim.turn.id.rpartition(".")[2]))
            running[session] -= 1
            left -= 1
            await store.settle(
                Held(claim.turn.scoped_id, claim.turn.attempt, claim.turn.seq), [], completed()
            )

    await asyncio.gather(*map(work, stores))
    assert order == {f"s{k}": list(range(1, 21)) for k in range(3)}
    for store in stores:
        await store.close()


async def test_the_text_stands_for_an_agent_that_goes_on(store: Store, new_turn: MakeTurn) -> None:
    """The worker gets what was streamed, the client is told how much of it stands, in characters."""
    await store.submit(new_turn())
    held = await say(store, await take(store), "Grüße ", "👋🏽 ", "w")
    await lose(store, held)
    claim, _ = await store.claim("turns", "w2", ["other", "simulated"])
    assert claim is not None
    assert (claim.restart, claim.partial) == ("worker_lost", "Grüße 👋🏽 w")
    told = (await events(store, "s.1"))[-2]
    assert (told["type"], told["reason"], told["keep"]) == (
        "turn.restarted",
        "worker_lost",
        len(claim.partial),
    )
    held = await say(store, Held("default:s.1", 2, claim.turn.seq), "2 ")
    await store.hand_back(held, [delta("w3")])
    claim, _ = await store.claim("turns", "w3", ["simulated"])
    assert claim is not None
    assert (claim.restart, claim.partial) == ("drained", "Grüße 👋🏽 w2 w3")


async def test_what_an_earlier_attempt_took_back_does_not_stand(store: Store, new_turn: MakeTurn) -> None:
    """A restart in the log counts: the text is what a client has."""
    await store.submit(new_turn())
    held = await say(store, await take(store), "äöü wrong")
    await lose(store, await write(store, held, restarted("retry", 3), delta("right")))
    claim, _ = await store.claim("turns", "w2", ["simulated"])
    assert claim is not None
    assert claim.partial == "äöüright"
    await lose(store, await say(store, Held("default:s.1", 2, claim.turn.seq), "!"))
    claim, _ = await store.claim("turns", "w3")
    assert claim is not None
    assert claim.partial == ""
    assert (await events(store, "s.1"))[-2]["keep"] == 0
    await store.hand_back(Held("default:s.1", 3, claim.turn.seq), [delta("anew")])
    claim, _ = await store.claim("turns", "w4", ["simulated"])
    assert claim is not None
    assert claim.partial == "anew"


async def test_a_turn_that_lost_nothing_has_no_partial_answer(store: Store, new_turn: MakeTurn) -> None:
    """The first attempt is no restart."""
    await store.submit(new_turn())
    claim, _ = await store.claim("turns", "w1", ["simulated"])
    assert claim is not None
    assert (claim.restart, claim.partial) == (None, "")


async def test_a_turn_of_another_agent_is_left_for_who_has_it(store: Store, new_turn: MakeTurn) -> None:
    """It is parked, in its order; those behind it are claimed. It is not ready, so nobody is woken."""
    for name, agent in (("new1", "new"), ("new2", "new"), ("old", "simulated")):
        await store.submit(new_turn(name, agent=agent))
    claim, _ = await store.claim("turns", "w1", [], ["simulated", "ne"])
    assert claim is not None
    assert claim.turn.id == "old.1"
    state = await store.queue_state("turns")
    assert (state.queued, state.ready, state.parked) == (2, 0, {"new": 2})
    assert (await store.reap("turns", ["simulated"])).parked == ()
    places = (await store.reap("turns", ["simulated", "new"])).parked
    assert places == (store.prefix,) * 2
    for name in ("new1.1", "new2.1"):
        claim, _ = await store.claim("turns", "w2", [], ["new"], parked=places[0])
        assert claim is not None
        assert claim.turn.id == name
    assert await store.claim("turns", "w2", [], ["new"], parked=places[0]) == (None, ())
    assert (await store.queue_state("turns")).parked == {}


@pytest.mark.parametrize("end", ["cancel", "deadline", "delete", "forgotten"])
async def test_a_parked_turn_can_be_ended(store: Store, new_turn: MakeTurn, end: str) -> None:
    """It waits like any other, and the turn behind it in its session is next."""
    await store.submit(new_turn(agent="new"))
    await store.submit(new_turn())
    assert (await store.claim("turns", "w1", [], ["simulated"]))[0] is None
    if end == "cancel":
        await store.cancel("s.1", "default")
    elif end == "delete":
        await store.delete_session("s", "default")
    elif end == "deadline":
        await pass_deadline(store, "s.1")
        assert (await store.expire("turns"))[0] == ("default:s.1",)
    else:
        await store.redis.delete(keys.turn(store.prefix, "default:s.1"))
        claim, woken = await store.claim("turns", "w2", [], ["new"], parked=store.prefix)
        assert (claim, woken) == (None, ("turns",))
    assert (await store.queue_state("turns")).parked == {}
    assert await store.redis.exists(keys.unserved(store.prefix, "turns")) == 0
    assert (await store.queue_state("turns")).ready == (0 if end == "delete" else 1)


async def test_parked_turns_past_their_deadline_are_failed_by_the_claim(
    store: Store, new_turn: MakeTurn
) -> None:
    """As ready ones are."""
    await store.submit(new_turn(agent="new"))
    await store.claim("turns", "w1", [], ["simulated"])
    await store.redis.hset(keys.turn(store.prefix, "default:s.1"), "deadline_at", 1)
    assert (await store.claim("turns", "w2", [], ["new"], parked=store.prefix))[0] is None
    assert (await record(store, "s.1")).status is Status.FAILED


async def test_a_claim_parks_a_hundred_at_most(settings: Settings, store: Store, new_turn: MakeTurn) -> None:
    """So that the script stays short; the queue is woken for the rest."""
    many = Store(store.nodes, settings.model_copy(update={"max_queued": 1000}))
    for n in range(150):
        await many.submit(new_turn(f"s{n}", agent="new"))
    await many.submit(new_turn("old"))
    assert await many.claim("turns", "w1", [], ["simulated"]) == (None, ("turns",))
    claim, _ = await many.claim("turns", "w1", [], ["simulated"])
    assert claim is not None
    assert claim.turn.id == "old.1"
    assert (await many.queue_state("turns")).parked == {"new": 150}
