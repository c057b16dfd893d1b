"""Streams while the cluster changes: no hole, no double, and none that waits for a ping."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.api.clients import client_of, post
from tests.api.server import ApiServer, serving
from tests.api.test_relay import read
from tests.api.worker import Run
from tests.conftest import wait_until
from tests.failover.servers import ClusterServers, Server
from turnpool.errors import StoreAwayError
from turnpool.settings import Settings
from turnpool.store.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SESSIONS = [f"s{n}" for n in range(24)]


@pytest.fixture
def api(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """An API server on the cluster, which does nothing there by itself: it must hear of changes."""
    monkeypatch.setattr("turnpool_api.upkeep.LOOK_SECONDS", 1000)
    with ExitStack() as stack:
        yield stack.enter_context(serving(settings))


async def runs_of(api: ApiServer, store: Store) -> list[Run]:
    """A running turn in each session."""
    async with client_of(api) as client:
        await asyncio.gather(*(post(client, session) for session in SESSIONS))
    runs = []
    while claim := (await store.claim("turns", "w1"))[0]:
        runs.append(Run(store, claim))
    assert len(runs) == len(SESSIONS)
    return runs


async def until_done(run: Run, *texts: str) -> None:
    """Say something, however long Redis is away, as a worker does."""
    seq, text = run.seq, run.text
    while True:
        try:
            assert await run.say(*texts)
        except StoreAwayError:
            # The same again: what was written before its answer was lost comes once.
            run.seq, run.text = seq, text
            await asyncio.sleep(0.05)
        else:
            return


async def talk(runs: list[Run], stop: asyncio.Event) -> None:
    """All turns stream until it is enough, then end."""

    async def one(run: Run) -> None:
        while not stop.is_set():
            await until_done(run, "a ")
            await asyncio.sleep(0.01)
        await run.complete()

    await asyncio.gather(*map(one, runs))


async def listeners(servers: list[Server]) -> list[int]:
    """How many sharded channels each server has listeners of."""
    return [len(await server.client.execute_command("PUBSUB SHARDCHANNELS")) for server in servers]


async def all_heard(cluster: ClusterServers) -> bool:
    """Whether there are listeners for all sessions' streams."""
    return sum(await listeners(await cluster.primaries())) == len(SESSIONS)


async def check(runs: list[Run], reading: "list[asyncio.Task[list[int]]]") -> None:
    """Every stream has all, once, in order."""
    for run, task in zip(runs, reading, strict=True):
        assert await asyncio.wait_for(task, 5) == list(range(1, run.seq + 1))


async def test_streams_of_all_nodes(cluster: ClusterServers, api: ApiServer, store: Store) -> None:
    """One connection to each node, each channel where its partition is; afterwards none is left."""
    runs = await runs_of(api, store)
    async with client_of(api) as client:
        reading = [asyncio.create_task(read(client, run.id)) for run in runs]
        primaries = await cluster.primaries()
        await wait_until(lambda: all_heard(cluster))
        assert all(await listeners(primaries))
        stop = asyncio.Event()
        talking = asyncio.create_task(talk(runs, stop))
        await wait_until(lambda: said(runs, 20))
        stop.set()
        await talking
        await check(runs, reading)

        async def none_heard() -> bool:
            return not any(await listeners(primaries))

        await wait_until(none_heard)
    for primary in primaries:
        assert len(await primary.client.client_list(_type="pubsub")) == 1


async def said(runs: list[Run], count: int) -> bool:
    """Whether every turn has streamed so much more than at its start."""
    return all(run.seq >= count for run in runs)


async def test_streams_go_on_while_slots_move(cluster: ClusterServers, api: ApiServer, store: Store) -> None:
    """To another node and back, while events come."""
    runs = await runs_of(api, store)
    stop = asyncio.Event()
    async with client_of(api) as client:
        reading = [asyncio.create_task(read(client, run.id)) for run in runs]
        talking = asyncio.create_task(talk(runs, stop))
        await wait_until(lambda: said(runs, 10))
        for run in runs[:4]:
            slot = slot_of(store, run)
            home = await cluster.owner(slot)
            other = next(server for server in await cluster.primaries() if server is not home)
            await cluster.move(slot, other)
            reached = min(r.seq for r in runs) + 20
            await wait_until(lambda: said(runs, reached))  # noqa: B023 - awaited at once
            await cluster.move(slot, home)
        stop.set()
        await talking
        await check(runs, reading)


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_end_after_a_slot_has_moved_is_told_at_once(
    cluster: ClusterServers, api: ApiServer, store: Store, *, at_once: bool
) -> None:
    """At the new node, whether it comes before the stream is heard there or after; nothing was said since."""
    nodes = api.context.store.nodes
    assert api._loop
    async with client_of(api) as client:
        for run in (await runs_of(api, store))[:3]:
            slot = slot_of(store, run)
            home = await cluster.owner(slot)
            other = next(server for server in await cluster.primaries() if server is not home)
            reading = asyncio.create_task(read(client, run.id))
            await wait_until(partial(heard, home, store, run))
            with pytest.MonkeyPatch.context() as patch:
                if at_once:
                    patch.setattr(nodes, "suspect", lambda: None)
                await cluster.move(slot, other)
                if not at_once:
                    await wait_until(partial(heard, other, store, run))
                await run.complete()
            api._loop.call_soon_threadsafe(nodes.suspect)
            assert await asyncio.wait_for(reading, 3) == [1, 2, 3]
            await cluster.move(slot, home)


async def heard(server: Server, store: Store, run: Run) -> bool:
    """Whether somebody listens to the session at this server."""
    session = run.id.removesuffix(".1")
    ((_, count),) = await server.client.pubsub_shardnumsub(store.channel(session, "default")[1])
    return int(count) == 1


async def test_streams_go_on_when_a_primary_dies(
    cluster: ClusterServers, api: ApiServer, store: Store
) -> None:
    """Its own wait for the replica, those of other nodes do not even wait."""
    for server in cluster.servers:
        await server.client.config_set("cluster-require-full-coverage", "no")
    runs = await runs_of(api, store)
    victim = (await cluster.primaries())[0]
    theirs = [run for run in runs if await cluster.owner(slot_of(store, run)) is victim]
    others = [run for run in runs if run not in theirs]
    assert theirs
    stop, stop_others = asyncio.Event(), asyncio.Event()
    async with client_of(api) as client:
        reading = [asyncio.create_task(read(client, run.id)) for run in runs]
        await wait_until(lambda: all_heard(cluster))
        talking = asyncio.create_task(talk(others, stop_others))
        for run in theirs:
            await until_done(run, "a ")
        assert await victim.client.execute_command("WAIT", 1, 5000) == 1
        victim.kill()
        again = asyncio.create_task(talk(theirs, stop))
        reached = min(run.seq for run in others) + 40
        await asyncio.wait_for(wait_until(lambda: said(others, reached)), 5)
        await wait_until(lambda: said(theirs, 20), 20)
        stop.set()
        stop_others.set()
        await asyncio.gather(talking, again)
        await check(runs, reading)


def slot_of(store: Store, run: Run) -> int:
    """The slot of a turn's partition."""
    slots: dict[str, int] = store.nodes._slots  # type: ignore[attr-defined]
    return slots[store.prefix_of_turn(run.scoped_id)]
