"""The API's client, against real connections that break in every way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tests.turnpool.cli.fake_api import accepted, answer, delta, event, serving, stream
from turnpool.cli.client import ApiError, Client, Event, UnreachableError

T = TypeVar("T")

START = (event(1, "queued", position=0), event(2, "in_progress", worker="w"), delta(3, "a "))
END = (delta(4, "b "), event(5, "completed", output="a b "))


def call(urls: list[str], use: Callable[[Client], Awaitable[T]], *, give_up_seconds: float = 5) -> T:
    """Use a client and close it."""

    async def run() -> T:
        async with Client(urls, "secret", give_up_seconds=give_up_seconds) as client:
            return await use(client)

    return asyncio.run(run())


async def read(client: Client) -> list[Event]:
    """Read all events of a turn."""
    return [event async for event in client.events("s.1")]


def test_a_stream_that_breaks_goes_on_after_the_last_event_seen() -> None:
    """The second request names the last id, and each event comes once and in order."""
    with serving(stream(*START), stream(*END)) as api:
        events = call([api.url], read)
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert api.headers("Last-Event-ID") == [None, "3"]
    assert api.headers("Authorization") == ["Bearer secret", "Bearer secret"]


def test_events_that_come_again_are_left_out() -> None:
    """An API that repeats itself after a reconnection does no harm."""
    with serving(stream(*START), stream(*START, *END)) as api:
        assert [event.seq for event in call([api.url], read)] == [1, 2, 3, 4, 5]


def test_a_stream_goes_on_at_another_process() -> None:
    """When one API process goes away, the next address gets the rest."""
    with serving(stream(*END)) as second, serving(stream(*START)) as first:
        urls = [first.url, second.url]

        async def read_both(client: Client) -> list[int]:
            seqs = []
            async for item in client.events("s.1"):
                seqs.append(item.seq)
                if item.seq == START[-1]["seq"]:
                    first.server_close()
            return seqs

        assert call(urls, read_both) == [1, 2, 3, 4, 5]
    assert second.headers("Last-Event-ID") == ["3"]


@pytest.mark.slow
def test_the_loss_of_a_connection_is_told_once() -> None:
    """However many tries it takes, the person reads one line."""
    told: list[str] = []

    async def read_and_note(client: Client) -> list[Event]:
        client.notify = told.append
        return await read(client)

    unready = answer(503, {"detail": "Redis does not answer."})
    with serving(stream(*START), unready, unready, stream(*END)) as api:
        call([api.url], read_and_note)
    assert len(told) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_that_may_pass_is_tried_again_with_the_same_key(status: int) -> None:
    """A repeated post has the Idempotency-Key of the first, so it makes no second turn."""
    with serving(answer(status, {"detail": "later"}), accepted("s.7")) as api:
        assert call([api.url], lambda client: client.post_turn("s", "hi", "chat")) == "s.7"
    first, second = api.headers("Idempotency-Key")
    assert first
    assert first == second
    assert api.bodies[0] == {"input": "hi", "agent": "chat"}


@pytest.mark.slow
def test_retry_after_is_kept() -> None:
    """The client waits as long as the API asks."""
    with serving(answer(503, {}, Retry_After="1"), answer(200, {"queued": 0})) as api:

        async def timed(client: Client) -> float:
            loop = asyncio.get_running_loop()
            start = loop.time()
            await client.pool()
            return loop.time() - start

        assert call([api.url], timed) >= 1


def test_a_refusal_for_good_says_why_at_once() -> None:
    """The problem's detail is the error's message."""
    problem = answer(404, {"title": "Not Found", "detail": "There is no turn 's.1'."})
    with serving(problem) as api:
        with pytest.raises(ApiError, match=r"There is no turn 's\.1'\.") as raised:
            call([api.url], read)
        assert raised.value.status == 404
        assert len(api.seen) == 1


def test_a_session_id_cannot_change_the_path() -> None:
    """What is no session id is the API's to refuse, not another route."""
    with serving(answer(404, {"detail": "no"})) as api:
        with pytest.raises(ApiError):
            call([api.url], lambda client: client.turns("a/../b"))
        assert api.seen[0][1] == "/v1/sessions/a%2F..%2Fb/turns?include=output"


@pytest.mark.slow
def test_without_any_answer_it_gives_up_and_says_what_to_do() -> None:
    """The message names the address and how to start turnpool."""
    with serving(answer(200, {})) as api:
        url = api.url
    with pytest.raises(UnreachableError, match=rf"{url}.*turnpool up"):
        call([url], lambda client: client.pool(), give_up_seconds=0.5)
