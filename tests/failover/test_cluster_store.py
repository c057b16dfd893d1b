"""The store on a cluster: what is in one partition, and what goes over all of them."""

import asyncio
import random
import signal
from contextlib import suppress
from itertools import pairwise

import pytest
from redis.exceptions import ResponseError

from tests.conftest import wait_until
from tests.failover.servers import ClusterServers
from tests.turnpool.scripts.kit import (
    MakeTurn,
    completed,
    contents,
    events,
    say,
    take,
    worker_info,
)
from turnpool import keys
from turnpool.errors import QueueFullError, SessionNotFoundError, StoreAwayError, TurnNotFoundError
from turnpool.events import delta
from turnpool.ids import session_of, unscoped
from turnpool.models import OnBusy, WorkerInfo
from turnpool.redis.connections import ANSWER_TIMEOUT
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store.store import Held, Store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SESSIONS = [f"s{n}" for n in range(100)]


async def submit_all(store: Store, new_turn: MakeTurn, **changes: object) -> None:
    """A turn in each session."""
    await asyncio.gather(*(store.submit(new_turn(session, **changes)) for session in SESSIONS))


async def claim_all(store: Store) -> list[Held]:
    """Every ready turn."""
    held = []
    while claim := (await store.claim("turns", "w1"))[0]:
        held.append(Held(claim.turn.scoped_id, claim.turn.attempt, claim.turn.seq))
    return held


async def test_turns_of_all_partitions_run_to_their_ends(
    cluster: ClusterServers, store: Store, new_turn: MakeTurn
) -> None:
    """Submitted, claimed, streamed and settled, on every node; the pool's numbers are of all."""
    await submit_all(store, new_turn)
    assert len({store.prefix_of(f"default:{session}") for session in SESSIONS}) > 40
    sizes = [await server.client.dbsize() for server in await cluster.primaries()]
    assert all(size > 50 for size in sizes)
    state = await store.queue_state("turns")
    assert (state.queued, state.running) == (100, 0)
    assert 0 < state.oldest_wait_seconds < 10
    held = await claim_all(store)
    assert sorted(h.turn_id for h in held) == sorted(f"default:{session}.1" for session in SESSIONS)
    assert (await store.queue_state("turns")).running == 100
    assert await store.append([(h, [delta("a"), delta("b")]) for h in held]) == [True] * 100
    assert await store.append([(h, [delta("a"), delta("b"), delta("c")]) for h in held]) == [True] * 100
    for h in held:
        await store.settle(h._replace(seq=h.seq + 3), [delta("d")], completed("abcd"))
    for session in SESSIONS:
        assert [event["seq"] for event in await events(store, f"{session}.1")] == list(range(1, 8))
        assert await contents(store, session) == ["hello", "abcd"]
    assert (await store.queue_state("turns")).running == 0


async def test_a_session_keeps_its_order(store: Store, new_turn: MakeTurn) -> None:
    """The next turn is ready when the one before has ended; interrupt and cancel reach what they should."""
    for _ in range(3):
        await store.submit(new_turn("a"))
    first = await take(store)
    assert await claim_all(store) == []
    assert await store.unfinished("a", "default") == [1, 2, 3]
    assert await store.settle(first, [], completed()) == ("turns",)
    assert (await take(store)).turn_id == "default:a.2"
    assert (await store.cancel("a.3", "default")).state == "cancelled"
    await store.submit(new_turn("a", on_busy=OnBusy.INTERRUPT))
    assert await store.renew(worker_info(), [("default:a.2", 1)]) == {"default:a.2/1": "cancelled"}
    assert [turn.record.id for turn in (await store.turns("a", "default", 10, None))[0]] == [
        "a.4",
        "a.3",
        "a.2",
        "a.1",
    ]
    await store.delete_session("a", "default")
    with pytest.raises(SessionNotFoundError):
        await store.session("a", "default")
    with pytest.raises(TurnNotFoundError):
        await store.turn("a.1", "default")


async def test_priority_counts_over_partitions(store: Store, new_turn: MakeTurn) -> None:
    """A tenant's turns are claimed by priority, then age, wherever they are."""
    order = random.Random(7)  # noqa: S311 - the same each time
    priorities = {f"p{n}": order.randrange(3) for n in range(40)}
    for session, priority in priorities.items():
        await store.submit(new_turn(session, priority=priority))
    claimed = [unscoped(session_of(held.turn_id)) for held in await claim_all(store)]
    assert [priorities[session] for session in claimed] == sorted(priorities.values())
    urgent = [int(session[1:]) for session in claimed if priorities[session] == 0]
    # Those of one millisecond come in any order.
    assert sum(a > b for a, b in pairwise(urgent)) < len(urgent) / 2


async def test_a_tenant_with_many_sessions_starves_nobody(store: Store, new_turn: MakeTurn) -> None:
    """One turn among a hundred of another tenant is claimed soon, though those lie in every partition."""
    await submit_all(store, new_turn, tenant="big")
    for held in await claim_all(store):
        await store.settle(held, [], completed())
    await submit_all(store, new_turn, tenant="big")
    await store.submit(new_turn("small", tenant="small"))
    claimed = [(await take(store)).turn_id for _ in range(30)]
    assert "small:small.1" in claimed  # by chance in one of two claims


async def test_leases_that_ran_out_are_found_in_every_partition(
    settings: Settings, store: Store, new_turn: MakeTurn
) -> None:
    """Once the living have had their time to renew, each turn goes back to its queue, and wakes a worker."""
    await submit_all(store, new_turn)
    held = await claim_all(store)
    kept = [(h.turn_id, h.attempt) for h in held[:10]]

    requeued: tuple[str, ...] = ()

    async def reap_all() -> bool:
        await store.renew(worker_info(), kept)
        nonlocal requeued
        reaped = await store.reap("turns")
        assert reaped.woken == ("turns",) * len(reaped.requeued)
        requeued += reaped.requeued
        return len(requeued) >= 90

    await wait_until(reap_all, 5 * settings.lease_seconds + 5)
    assert set(requeued) == {h.turn_id for h in held[10:]}
    assert set(await store.renew(worker_info(), [(h.turn_id, h.attempt) for h in held])) == {
        f"{h.turn_id}/1" for h in held[10:]
    }


async def test_deadlines_pass_in_every_partition(store: Store, new_turn: MakeTurn) -> None:
    """What waited too long fails, all of it at once."""
    await submit_all(store, new_turn, deadline_seconds=0.2)
    ended: tuple[str, ...] = ()

    async def all_ended() -> bool:
        nonlocal ended
        ended += (await store.expire("turns"))[0]
        return len(ended) == 100

    await wait_until(all_ended)
    assert (await store.turn("s7.1", "default")).status is Status.FAILED
    assert await store.error_code("default:s7.1") == "expired"


async def test_wake_ups_are_counted_over_all_partitions(store: Store, new_turn: MakeTurn) -> None:
    """Ready turns of all partitions against the broker's one list, once for all workers."""
    await submit_all(store, new_turn)
    assert await store.top_up("turns", 60, 0) == 0
    assert await store.top_up("turns", 60, 0) == 40
    looks = [store.top_up("turns", 0, 60_000) for _ in range(5)]
    assert await asyncio.gather(*looks) == [0] * 5
    await claim_all(store)
    assert await store.top_up("turns", 100, 0) == 0
    assert await store.top_up("turns", 100, 0) == -100


async def test_sessions_are_listed_from_all_partitions(store: Store, new_turn: MakeTurn) -> None:
    """In pages, the one last used first, each once, those of one time too."""
    await submit_all(store, new_turn)
    await store.submit(new_turn("foreign", tenant="other"))
    found, cursor = await store.sessions("default", 7, None)
    while cursor:
        page, cursor = await store.sessions("default", 7, cursor)
        found += page
    assert len(found) == 100
    assert {session.id for session in found} == set(SESSIONS)
    for session in SESSIONS:
        name = f"default:{session}"
        p = store.prefix_of(name)
        await store.nodes.execute(p, "ZADD", keys.sessions(p, "default"), 1_700_000_000_000, name)
    again, cursor = await store.sessions("default", 33, None)
    while cursor:
        page, cursor = await store.sessions("default", 33, cursor)
        again += page
    assert [session.id for session in again] == sorted(SESSIONS, reverse=True)


async def test_a_queue_is_full_by_the_sum_of_its_partitions(
    settings: Settings, store: Store, new_turn: MakeTurn
) -> None:
    """As of a moment ago: the limit is not each partition's own."""
    small = Store(store.nodes, settings.model_copy(update={"max_queued": 50}))
    accepted = 0

    async def is_full() -> bool:
        nonlocal accepted
        try:
            await small.submit(new_turn(f"f{accepted}"))
        except QueueFullError:
            return True
        accepted += 1
        return False

    await wait_until(is_full)
    assert accepted >= 50
    assert (await events(store, "f40.1"))[0]["position"] <= 40


async def test_a_worker_is_listed_once(cluster: ClusterServers, store: Store, new_turn: MakeTurn) -> None:
    """However many partitions its turns are in; what it lost in any of them it is told."""
    await submit_all(store, new_turn)
    held = [(h.turn_id, h.attempt) for h in await claim_all(store)]
    stop = await store.renew(
        worker_info("w1", running=100), [*held, ("default:s1.1", 7), ("default:nobody.1", 1)]
    )
    assert stop == {"default:s1.1/7": "lost", "default:nobody.1/1": "lost"}
    assert await store.workers() == [WorkerInfo("w1", ("turns",), 10, 100, draining=False)]
    for server in await cluster.primaries():
        names = [key async for key in server.client.scan_iter("*:worker*")]
        assert {name.partition(b"}")[0] + b"}:" for name in names} <= {store.prefix.encode()}
    await store.leave("w1")
    assert await store.workers() == []


async def move_by_key(cluster: ClusterServers, slot: int, *, finish: asyncio.Event) -> None:
    """Move a slot as every Redis does it: key by key; the slot's owner changes once `finish` is set."""
    source = await cluster.owner(slot)
    target = next(server for server in await cluster.primaries() if server is not source)
    ids = [await cluster.node_id(source), await cluster.node_id(target)]
    await target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
    await source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
    while found := await source.client.execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
        await source.client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *found)
    await finish.wait()
    for server in (target, source):
        await server.client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])


async def test_a_slot_that_moves_is_away_for_so_long_and_loses_nothing(
    cluster: ClusterServers, store: Store, new_turn: MakeTurn
) -> None:
    """A script on the new node would find half of its keys, so none runs while they are on their way."""
    await store.submit(new_turn("a"))
    held = await say(store, await take(store), "x")
    slot = store.nodes._slots[store.prefix_of("default:a")]  # type: ignore[attr-defined]
    finish = asyncio.Event()
    moving = asyncio.create_task(move_by_key(cluster, slot, finish=finish))

    async def is_moving() -> bool:
        try:
            await store.submit(new_turn("a"))
        except StoreAwayError:
            return True
        return False

    await wait_until(is_moving)
    (reply,) = await store.append([(held, [delta("y")])])
    assert isinstance(reply, StoreAwayError)
    finish.set()
    await moving
    held = await say(store, held, "y")
    await store.settle(held, [], completed("xy"))
    assert await contents(store, "a") == ["hello", "xy"]
    assert [event["seq"] for event in await events(store, "a.1")] == list(range(1, 6))


async def test_a_slot_that_has_moved_is_followed_at_once(
    cluster: ClusterServers, store: Store, new_turn: MakeTurn
) -> None:
    """What the old node refuses was not carried out: it goes to the new one, and no caller notices."""
    await store.submit(new_turn("a"))
    held = await take(store)
    slot = store.nodes._slots[store.prefix_of("default:a")]  # type: ignore[attr-defined]
    home = await cluster.owner(slot)
    other = next(server for server in await cluster.primaries() if server is not home)
    await cluster.move(slot, other)
    held = await say(store, held, "x")
    await cluster.move(slot, home)
    await store.settle(held, [], completed("x"))
    assert [event["seq"] for event in await events(store, "a.1")] == [1, 2, 3, 4]


async def test_one_node_that_hangs_holds_up_no_other(
    cluster: ClusterServers, store: Store, new_turn: MakeTurn
) -> None:
    """Claims, events and renewals of the others go on; its own come again once it is back."""
    await submit_all(store, new_turn)
    held = await claim_all(store)
    await submit_all(store, new_turn)  # so that something is ready later
    loop = asyncio.get_running_loop()
    victim = (await cluster.primaries())[2]
    victim.signal(signal.SIGSTOP)
    try:
        started = loop.time()
        replies = await store.append([(h, [delta("x")]) for h in held])
        assert 10 < replies.count(True) < 90
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        assert len(errors) == 100 - replies.count(True)
        assert {type(error) for error in errors} == {StoreAwayError}
        assert await store.renew(worker_info(), [(h.turn_id, h.attempt) for h in held]) == {}
        await store.reap("turns")
        assert await store.reachable()
        assert loop.time() - started < 4
    finally:
        victim.signal(signal.SIGCONT)

    async def all_written() -> bool:
        try:
            return (await store.append([(h, [delta("x")]) for h in held])) == [True] * 100
        except StoreAwayError:
            return False

    await wait_until(all_written, 20)
    for h in held:
        assert [event["seq"] for event in await events(store, unscoped(h.turn_id))] == [1, 2, 3]


async def test_a_primary_that_dies_is_followed(
    cluster: ClusterServers, store: Store, new_turn: MakeTurn
) -> None:
    """Its partitions are away until the replica has taken over, the others are not."""
    await submit_all(store, new_turn)
    held = await claim_all(store)
    for server in await cluster.primaries():
        await server.client.config_set("cluster-require-full-coverage", "no")
    victim = (await cluster.primaries())[0]
    # All of it has reached the replica: what is tested here is not how much a replica lags.
    assert await victim.client.execute_command("WAIT", 1, 5000) == 1
    victim.kill()
    replies = await store.append([(h, [delta("x")]) for h in held])
    assert 10 < replies.count(True) < 90

    async def back() -> bool:
        try:
            return (await store.append([(h, [delta("x")]) for h in held])) == [True] * 100
        except StoreAwayError:
            return False

    await wait_until(back, 20)
    for h in held:
        await store.settle(h._replace(seq=h.seq + 1), [], completed())
        assert [event["seq"] for event in await events(store, unscoped(h.turn_id))] == [1, 2, 3, 4]


async def test_nobody_waits_for_a_primary_that_hangs_once_it_is_replaced(
    cluster: ClusterServers, store: Store, new_turn: MakeTurn
) -> None:
    """Its callers get their error, and the next try goes to the replica, long before an answer is overdue."""
    await store.submit(new_turn("a"))
    held = await take(store)
    victim = await cluster.owner(store.nodes._slots[store.prefix_of("default:a")])  # type: ignore[attr-defined]
    assert await victim.client.execute_command("WAIT", 1, 5000) == 1
    victim.signal(signal.SIGSTOP)
    try:
        started = asyncio.get_running_loop().time()
        waiting = asyncio.create_task(store.settle(held, [], completed()))

        async def is_replaced() -> bool:
            with suppress(StoreAwayError):
                await store.ping()
            return waiting.done()

        await wait_until(is_replaced)
        with pytest.raises(StoreAwayError):
            waiting.result()
        await store.settle(held, [], completed())
        assert asyncio.get_running_loop().time() - started < ANSWER_TIMEOUT
    finally:
        victim.signal(signal.SIGCONT)
    assert await contents(store, "a") == ["hello", "hi"]


async def test_a_server_that_is_no_cluster_is_told_as_such(redis_url: str, settings: Settings) -> None:
    """Not as one that is away."""
    url = redis_url.replace("redis://", "redis+cluster://")
    store = Store.connect(settings.model_copy(update={"redis_url": url}))
    with pytest.raises(ResponseError, match="cluster support disabled"):
        await store.ping()
    await store.close()
