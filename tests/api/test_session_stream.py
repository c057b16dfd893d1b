"""One stream with the events of all turns of a session."""

import asyncio
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.sse import Event, stream
from tests.api.worker import Run, claim
from tests.conftest import wait_until
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio

PATH = "/v1/sessions/s/events"


def places(events: list[Event]) -> list[tuple[str, int]]:
    """Turn and seq of each event."""
    return [(event.data["turn_id"], event.data["seq"]) for event in events]


def check_order(events: list[Event]) -> None:
    """No event twice, and those of each turn in order."""
    seen: Counter[str] = Counter()
    for turn_id, seq in places(events):
        last = seen[turn_id]
        assert seq > last
        seen[turn_id] = seq


async def test_all_turns_of_a_session_come_on_one_stream(client: httpx.AsyncClient, store: Store) -> None:
    """Those that have not ended from their start, then all to come, each under its own name."""
    await post(client)
    await (await claim(store)).complete()
    await post(client)
    run = await claim(store)
    async with stream(client, PATH) as events:
        assert places(await events.take(2)) == [("s.2", 1), ("s.2", 2)]
        await post(client)
        await run.say("a")
        await run.complete()
        again = await claim(store)
        await again.complete()
        rest = await events.until_end_of_turns(2)
    assert sorted(places(rest)) == [("s.2", 3), ("s.2", 4), ("s.3", 1), ("s.3", 2), ("s.3", 3)]
    check_order(rest)


async def test_an_empty_session_streams_what_comes(client: httpx.AsyncClient, store: Store) -> None:
    """A page that opens the stream before the first turn sees it whole."""
    await client.post("/v1/sessions", json={"id": "s"})
    async with stream(client, PATH) as events:
        assert await events.block() == b"retry: 1000"
        for n in (1, 2):
            await post(client)
            await (await claim(store)).complete()
            assert places(await events.take(3)) == [(f"s.{n}", seq) for seq in (1, 2, 3)]


async def test_other_sessions_are_not_heard(client: httpx.AsyncClient) -> None:
    """Only the session's own turns come."""
    await post(client, "s")
    async with stream(client, PATH) as events:
        await events.next()
        await post(client, "s2")
        await post(client, "s")
        assert (await events.next()).data["turn_id"] == "s.2"


async def play(client: httpx.AsyncClient, store: Store, run: Run) -> None:
    """The running turn, two that wait, and one that comes in between, to their ends."""
    await run.say("a", "b")
    await post(client)
    await run.say("c")
    await client.post("/v1/turns/s.3/cancel")
    await run.complete()
    for _ in range(2):
        following = await claim(store)
        await following.say("d", "e")
        await following.complete()


ALL = 6 + 5 + 2 + 5
"""Events of turns 1, 2, 4 and the cancelled 3."""


@pytest.mark.slow
async def test_a_stream_goes_on_from_every_id(client: httpx.AsyncClient, store: Store) -> None:
    """With one turn running and two waiting when it began: no hole, no double, by header and by parameter."""
    for _ in range(3):
        await post(client)
    run = await claim(store)
    async with stream(client, PATH) as events:
        playing = asyncio.create_task(play(client, store, run))
        got = await events.take(ALL)
        await playing
    assert {turn_id for turn_id, _ in places(got)} == {"s.1", "s.2", "s.3", "s.4"}
    check_order(got)
    # A turn more, whose first event shows that nothing is left over before it.
    await post(client)
    for i, event in enumerate(got):
        ways: list[dict[str, Any]] = [
            {"headers": {"Last-Event-ID": event.id}},
            {"params": {"after": event.id}},
        ]
        for options in ways:
            async with stream(client, PATH, **options) as events:
                rest = await asyncio.wait_for(events.take(ALL - 1 - i + 1), 5)
            check_order(rest)
            assert sorted(places(rest)) == sorted([*places(got[i + 1 :]), ("s.5", 1)])


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3, 5])
async def test_a_stream_that_is_cut_again_and_again_loses_nothing(
    serve: Serve, store: Store, size: int
) -> None:
    """A client that comes back after every few events, at one server and the other, while turns run."""
    async with client_of(serve()) as one, client_of(serve()) as two:
        for _ in range(3):
            await post(one)
        run = await claim(store)
        playing = asyncio.create_task(play(one, store, run))
        got: list[Event] = []
        last = "0"
        clients = [one, two] * ALL
        while len(got) < ALL:
            headers = {"Last-Event-ID": last}
            async with stream(clients.pop(), PATH, headers=headers) as events:
                got += await asyncio.wait_for(events.take(min(size, ALL - len(got))), 5)
            last = got[-1].id
        await playing
    check_order(got)
    assert len(set(places(got))) == ALL


async def test_an_end_read_from_the_log_is_read_once(client: httpx.AsyncClient, store: Store) -> None:
    """A turn that ended while the client was away is not told again from its start."""
    await post(client)
    run = await claim(store)
    async with stream(client, PATH) as events:
        last = (await events.take(2))[-1].id
    await run.say("a")
    await run.complete()
    await post(client)
    async with stream(client, PATH, headers={"Last-Event-ID": last}) as events:
        assert places(await events.take(3)) == [("s.1", 3), ("s.1", 4), ("s.2", 1)]


async def test_a_session_that_was_gone_for_long_is_heard_again(
    client: httpx.AsyncClient, store: Store
) -> None:
    """When even the count of its turns has expired, numbers begin anew; an old id misses none of them."""
    await client.post("/v1/sessions", json={"id": "s"})
    await store.redis.flushdb()
    await post(client)
    async with stream(client, PATH, headers={"Last-Event-ID": "3,2:7"}) as events:
        assert places([await asyncio.wait_for(events.next(), 3)]) == [("s.1", 1)]


async def test_a_stream_of_a_session_that_is_gone_ends(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent stream looks whether its session is still there; the client that comes again is told 404."""
    monkeypatch.setattr("turnpool_api.streams.follow.PING_SECONDS", 0.1)
    async with client_of(serve()) as client:
        await client.post("/v1/sessions", json={"id": "s"})
        async with stream(client, PATH) as events:
            await events.block()
            await client.delete("/v1/sessions/s")
            assert await asyncio.wait_for(events.rest(), 3) == []
        assert (await client.get(PATH)).status_code == 404


async def test_a_stream_of_a_deleted_session_tells_the_end_of_its_turns(
    client: httpx.AsyncClient, store: Store
) -> None:
    """What was cancelled by the deletion is told to those who listen."""
    await post(client)
    await post(client)
    async with stream(client, PATH) as events:
        await events.take(2)
        assert (await client.delete("/v1/sessions/s")).status_code == 204
        ends = await asyncio.wait_for(events.take(2), 3)
        assert sorted(places(ends)) == [("s.1", 2), ("s.2", 2)]
        assert {event.kind for event in ends} == {"turn.cancelled"}

    async def nothing_waits() -> bool:
        return (await store.queue_state("turns")).queued == 0

    await wait_until(nothing_waits)
