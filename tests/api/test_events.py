"""Routes of events: where a stream starts and how it ends."""

import asyncio

import httpx
import pytest

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.sse import Stream, seqs, stream, text
from tests.api.worker import Run, claim
from turnpool.events import data_of, restarted
from turnpool.store.store import Held, Store

pytestmark = pytest.mark.anyio

EVENTS = "/v1/turns/s.1/events"


@pytest.fixture
async def ended(client: httpx.AsyncClient, store: Store) -> Run:
    """A turn of ten events that has completed."""
    await post(client)
    run = await claim(store)
    await run.say("a", "b", "c", "d", "e", "f", "g")
    await run.complete()
    return run


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("after", range(10))
@pytest.mark.parametrize("by", ["header", "parameter"])
async def test_a_stream_gives_exactly_what_comes_after(
    client: httpx.AsyncClient, after: int, by: str
) -> None:
    """From any id, by Last-Event-ID or ?after=, to the end."""
    options = (
        {"params": {"after": after}} if by == "parameter" else {"headers": {"Last-Event-ID": str(after)}}
    )
    async with stream(client, EVENTS, **options) as events:
        assert seqs(await asyncio.wait_for(events.rest(), 3)) == list(range(after + 1, 11))


@pytest.mark.usefixtures("ended")
async def test_last_event_id_goes_before_after(client: httpx.AsyncClient) -> None:
    """A browser that connects again repeats the old address with the new header."""
    async with stream(client, EVENTS, params={"after": 2}, headers={"Last-Event-ID": "8"}) as events:
        assert seqs(await events.rest()) == [9, 10]


@pytest.mark.usefixtures("ended")
async def test_after_the_end_there_is_no_content(client: httpx.AsyncClient) -> None:
    """204 keeps a browser's EventSource from connecting again and again."""
    answer = await client.get(EVENTS, headers={"Last-Event-ID": "10"})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("after", [11, 10**15 - 1])
async def test_who_has_more_than_the_log_is_told_the_end(client: httpx.AsyncClient, after: int) -> None:
    """The server has lost what the client saw: it learns how the turn ended, with the whole output."""
    async with stream(client, EVENTS, headers={"Last-Event-ID": str(after)}) as events:
        (end,) = await asyncio.wait_for(events.rest(), 3)
        assert (int(end.id), end.kind) == (10, "turn.completed")


async def test_without_follow_the_log_so_far_is_json(client: httpx.AsyncClient, store: Store) -> None:
    """The data of the events, at once, of a turn that still runs."""
    await post(client)
    run = await claim(store)
    await run.say("a", "b")
    answer = await client.get(EVENTS, params={"follow": "false"})
    assert answer.status_code == 200
    events = answer.json()["events"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert events == [data_of(frame) for frame in await store.frames("s.1", "default", 0)]
    rest = await client.get(EVENTS, params={"follow": "false", "after": 3})
    assert rest.json()["events"] == events[3:]
    none = await client.get(EVENTS, params={"follow": "false", "after": 4})
    assert none.json() == {"events": [], "next_cursor": None}


async def test_a_long_log_is_whole_in_json_and_stream(client: httpx.AsyncClient, store: Store) -> None:
    """More events than are read from the log at once."""
    await post(client)
    run = await claim(store)
    await run.say(*(f"w{i} " for i in range(1200)))
    await run.complete()
    seen: list[int] = []
    cursor: str | None = "0"
    while cursor is not None:
        page = (await client.get(EVENTS, params={"follow": "false", "after": cursor})).json()
        seen += [event["seq"] for event in page["events"]]
        cursor = page["next_cursor"]
    assert seen == list(range(1, 1204))
    async with stream(client, EVENTS) as events:
        assert seqs(await events.rest()) == list(range(1, 1204))


@pytest.mark.parametrize("follow", ["true", "false"])
@pytest.mark.usefixtures("ended")
async def test_a_log_that_has_expired_is_gone(client: httpx.AsyncClient, store: Store, follow: str) -> None:
    """410, while the turn itself can still be read."""
    await store.redis.delete("turnpool:{0}:log:default:s.1")
    answer = await client.get(EVENTS, params={"follow": follow})
    assert (answer.status_code, answer.json()["code"]) == (410, "log_expired")
    assert (await client.get("/v1/turns/s.1")).json()["output"] == "abcdefg"


async def test_every_kind_of_event_has_its_fields(client: httpx.AsyncClient, store: Store) -> None:
    """The data of each event, of a turn that was lost once and failed then."""
    await post(client)
    run = await claim(store)
    await run.say("a")
    await store.hand_back(Held(run.scoped_id, run.attempt, run.seq), [])
    again = await claim(store)
    await again.append([restarted("retry", 0)])
    await again.fail("provider_error", "No.")
    async with stream(client, EVENTS) as events:
        got = await events.rest()
    assert [event.kind for event in got] == [
        "turn.queued",
        "turn.in_progress",
        "turn.output_text.delta",
        "turn.restarted",
        "turn.in_progress",
        "turn.restarted",
        "turn.failed",
    ]
    for seq, event in enumerate(got, 1):
        assert event.id == str(seq)
        assert event.data["type"] == event.kind
        assert (event.data["turn_id"], event.data["seq"]) == ("s.1", seq)
        assert isinstance(event.data["created_at"], float)
    assert [event.data["attempt"] for event in got] == [0, 1, 1, 2, 2, 2, 2]
    assert got[0].data["position"] == 0
    assert got[1].data["worker"] == "w1"
    assert (got[3].data["reason"], got[3].data["keep"]) == ("drained", 0)
    assert got[6].data["error"] == {"code": "provider_error", "message": "No."}


async def test_a_stream_says_that_nothing_may_keep_it(client: httpx.AsyncClient) -> None:
    """No cache, no buffering proxy."""
    await post(client)
    async with stream(client, EVENTS) as events:
        assert events.response.headers["cache-control"] == "no-store"
        assert events.response.headers["x-accel-buffering"] == "no"


async def test_a_stream_whose_log_goes_away_ends(
    serve: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent stream looks whether its turn is still there; the client that comes again is told 404."""
    monkeypatch.setattr("turnpool_api.streams.follow.PING_SECONDS", 0.1)
    async with client_of(serve()) as client:
        await post(client)
        async with stream(client, EVENTS) as events:
            await events.next()
            await store.redis.delete("turnpool:{0}:log:default:s.1", "turnpool:{0}:turn:default:s.1")
            blocks = await asyncio.wait_for(events.rest_of_blocks(), 5)
        assert blocks[-1] == b"retry: 1000"
        assert (await client.get(EVENTS)).status_code == 404


async def next_text(events: Stream) -> str:
    """The text of the next event."""
    return text([await events.next()])


async def test_text_of_any_alphabet_comes_through(client: httpx.AsyncClient, store: Store) -> None:
    """Multi-byte characters, cut anywhere between events, and line ends of every kind."""
    texts = ["日本", "語 🎉", "é\n", "\r\n\r\n", "\u2028", "\n\nevent: turn.completed\n\n", "\x00", "👩‍👩‍👧"]
    await post(client)
    run = await claim(store)
    async with stream(client, EVENTS) as events:
        await events.take(2)
        for piece in texts:
            await run.say(piece)
            assert await next_text(events) == piece
        await run.complete()
        assert (await events.rest())[-1].data["output"] == "".join(texts)
