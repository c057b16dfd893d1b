"""The relay: subscribe, then the log, then live; no hole, no double."""

import asyncio
import random

import httpx
import pytest

from tests.api import raw
from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.sse import parse, seqs, stream, text
from tests.api.worker import Run, claim
from tests.conftest import wait_until
from turnpool.store.store import Store
from turnpool_api import metrics
from turnpool_api.streams.budget import MAX_SHARE

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def read(client: httpx.AsyncClient, turn_id: str, after: int = 0) -> list[int]:
    """The seqs that a stream gives, to its end."""
    async with stream(client, f"/v1/turns/{turn_id}/events", params={"after": after}) as events:
        return seqs(await asyncio.wait_for(events.rest(), 20))


async def talk(run: Run, events: int) -> int:
    """Append so many events, some alone and some together, then complete; gives the last seq."""
    order = random.Random(events)  # noqa: S311 - the same each time
    while events > 0:
        size = min(order.choice((1, 1, 1, 2, 5)), events)
        await run.say(*("w " for _ in range(size)))
        events -= size
    await run.complete()
    return run.seq


async def test_a_stream_from_any_place_gives_the_rest_while_events_come(serve: Serve, store: Store) -> None:
    """A stream after each id there will be, opened while the turn runs, gives exactly what is after it."""
    async with client_of(serve()) as client:
        await post(client)
        run = await claim(store)
        talking = asyncio.create_task(talk(run, 150))
        reading = [asyncio.create_task(read(client, "s.1", after)) for after in range(153)]
        got = await asyncio.gather(*reading)
        last = await talking
    assert got == [list(range(after + 1, last + 1)) for after in range(153)]


async def test_streams_that_open_one_by_one_while_events_come_have_no_hole(
    serve: Serve, store: Store
) -> None:
    """However the subscription falls between two events, all are there once."""
    async with client_of(serve()) as client:
        await post(client)
        run = await claim(store)
        talking = asyncio.create_task(talk(run, 800))
        reading = []
        while not talking.done():
            await run.store.ping()  # lets some events come in between
            reading.append(asyncio.create_task(read(client, "s.1")))
            if len(reading) == 40:
                break
        got = await asyncio.gather(*reading)
        last = await talking
    assert got == [list(range(1, last + 1))] * len(reading)


async def test_fifty_sessions_stream_at_once(serve: Serve, store: Store) -> None:
    """Each stream has its own turn's events and no other's."""
    async with client_of(serve()) as client:
        await asyncio.gather(*(post(client, f"s{i}") for i in range(50)))
        runs = [await claim(store) for _ in range(50)]
        reading = {run.id: asyncio.create_task(read(client, run.id)) for run in runs}
        lengths = {run.id: 20 + i for i, run in enumerate(runs)}
        await asyncio.gather(*(talk(run, lengths[run.id]) for run in runs))
        for turn_id, task in reading.items():
            assert await task == list(range(1, lengths[turn_id] + 4))


async def test_streams_of_one_turn_on_two_servers_are_alike(serve: Serve, store: Store) -> None:
    """Any API process serves any client."""
    async with client_of(serve()) as one, client_of(serve()) as two:
        await post(one)
        run = await claim(store)
        reading = [asyncio.create_task(read(client, "s.1")) for client in (one, two) * 5]
        await talk(run, 100)
        assert await asyncio.gather(*reading) == [list(range(1, 104))] * 10


async def test_a_client_goes_on_at_another_server(serve: Serve, store: Store) -> None:
    """With the last id it has, it gets exactly the rest there, again and again."""
    async with client_of(serve()) as one, client_of(serve()) as two:
        await post(one)
        run = await claim(store)
        talking = asyncio.create_task(talk(run, 200))
        got: list[int] = []
        clients = [one, two] * 100
        while not got or got[-1] < 203:
            after = got[-1] if got else 0
            async with stream(clients.pop(), "/v1/turns/s.1/events", params={"after": after}) as events:
                got += seqs(await events.take(min(7, 203 - after)))
        await talking
    assert got == list(range(1, 204))


async def churn(client: httpx.AsyncClient, turn_id: str, seed: int, stop: asyncio.Event) -> int:
    """Open and close streams of a turn; each must have the first events in order. Gives how many."""
    order, opened = random.Random(seed), 0  # noqa: S311 - the same each time
    while not stop.is_set():
        async with stream(client, f"/v1/turns/{turn_id}/events") as events:
            count = order.choice((1, 1, 2, 3))
            assert seqs(await asyncio.wait_for(events.take(count), 10)) == list(range(1, count + 1))
        opened += 1
    return opened


async def test_streams_that_come_and_go_harm_no_other(serve: Serve, store: Store) -> None:
    """Rapid opening and closing on the sessions of long streams: none hangs, none has a hole."""
    async with client_of(serve()) as client:
        for session in ("a", "b", "c"):
            await post(client, session)
        runs = [await claim(store) for _ in range(3)]
        stop = asyncio.Event()
        # Session c has no long stream: its channel is left and entered again each time.
        churning = [asyncio.create_task(churn(client, f"{s}.1", i, stop)) for i, s in enumerate("aabbcc")]
        reading = [asyncio.create_task(read(client, f"{s}.1")) for s in "ab"]
        talking = [asyncio.create_task(talk(run, 600)) for run in runs]
        assert await asyncio.gather(*reading) == [list(range(1, 604))] * 2
        await asyncio.gather(*talking)
        stop.set()
        assert sum(await asyncio.gather(*churning)) > 50


async def test_a_channel_that_is_left_and_entered_at_once_is_heard(serve: Serve, store: Store) -> None:
    """A stream that comes while the last one goes is live: it hears events, not only reads the log."""
    async with client_of(serve()) as client:
        await post(client)
        run = await claim(store)
        for _ in range(40):
            async with stream(client, "/v1/turns/s.1/events", params={"after": run.seq - 1}) as events:
                await events.next()
                await run.say("x")
                # A ping would read the log after 15 s; what is live comes at once.
                assert seqs([await asyncio.wait_for(events.next(), 3)]) == [run.seq]


async def listeners(store: Store) -> set[str]:
    """Ids of the server's pub/sub connections."""
    return {client["id"] for client in await store.redis.client_list(_type="pubsub")}


async def test_a_client_that_goes_away_leaves_nothing_behind(serve: Serve, store: Store) -> None:
    """Its stream is no longer counted, its channel not subscribed, the connection of all kept."""
    api = serve()
    before = metrics.STREAMS._value.get()
    async with client_of(api) as client:
        for i in range(20):
            await post(client, f"s{i}")
        kept = await listeners(store)
        for _ in range(3):
            opened = [raw.get(api.port, f"/v1/turns/s{i}.1/events") for i in range(20)]
            opened += [raw.get(api.port, f"/v1/sessions/s{i}/events") for i in range(20)]
            for answer in await asyncio.gather(*(one.__aenter__() for one in opened)):
                await answer.chunk()
            assert metrics.STREAMS._value.get() == before + 40
            assert len(await store.redis.pubsub_shardchannels("turnpool:*")) == 20
            await asyncio.gather(*(one.__aexit__(None, None, None) for one in opened))

            async def all_gone() -> bool:
                channels = await store.redis.pubsub_shardchannels("turnpool:*")
                return metrics.STREAMS._value.get() == before and not channels

            await wait_until(all_gone)
        assert await listeners(store) == kept
        assert api.context.relay._channels == {}


async def test_a_slow_client_gets_all_and_costs_little(serve: Serve, store: Store) -> None:
    """It stops reading while megabytes come, then reads on: everything, once, in order, from the log."""
    api = serve()
    async with client_of(api) as client:
        await post(client)
    run = await claim(store)
    slow = metrics.CATCH_UPS.labels("slow_client")._value
    before, most = slow.get(), 0
    async with raw.get(api.port, "/v1/turns/s.1/events", buffer=4096) as answer:
        got = [await answer.chunk()]
        (channel,) = api.context.relay._channels.values()
        (subscription,) = channel.streams
        for i in range(800):
            await run.say(f"{i}:" + "x" * 10_000)
            most = max(most, subscription._size)
        await run.complete()

        async def dropped_to_the_log() -> bool:
            return bool(subscription.behind and subscription._size == 0)

        await wait_until(dropped_to_the_log)
        assert slow.get() > before
        assert 0 < most <= MAX_SHARE + 20_000
        got += [chunk async for chunk in answer.chunks()]
    blocks = b"".join(got).split(b"\n\n")[:-1]
    events = [event for block in blocks if (event := parse(block))]
    assert seqs(events) == list(range(1, 804))
    assert text(events) == "".join(f"{i}:" + "x" * 10_000 for i in range(800))


async def test_a_slow_client_does_not_slow_the_others(serve: Serve, store: Store) -> None:
    """A stream of the same turn that reads gets each event at once."""
    api = serve()
    async with client_of(api) as client:
        await post(client)
        run = await claim(store)
        async with (
            raw.get(api.port, "/v1/turns/s.1/events", buffer=4096),
            stream(client, "/v1/turns/s.1/events") as events,
        ):
            await events.take(2)
            for _ in range(300):
                await run.say("x" * 10_000)
                assert seqs([await asyncio.wait_for(events.next(), 2)]) == [run.seq]
