"""Writing the events of all turns of a worker."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import cast

import pytest

from tests.conftest import wait_until
from tests.turnpool.scripts.kit import MakeTurn, events, take
from turnpool.agent import ToolCall
from turnpool.errors import StoreAwayError
from turnpool.events import Entry, delta, restarted, tool
from turnpool.settings import Settings
from turnpool.store.store import Held, Store
from turnpool_workers.attempt import writer as writing
from turnpool_workers.attempt.log import TurnLog
from turnpool_workers.attempt.writer import Writer

pytestmark = pytest.mark.anyio

CALL = tool(ToolCall("c", "look", {}))
# Far longer than a test: what is not urgent stays where it is.
LONG = 30.0


class Notebook:
    """A store that notes what it is given, with answers as the test wants them."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[Held, list[Entry]]]] = []
        self.times: list[float] = []
        self.errors: list[Exception] = []
        self.lost: set[str] = set()
        self.away: set[str] = set()
        self.slow = 0.0
        self.open = asyncio.Event()
        self.open.set()

    async def append(self, batches: Sequence[tuple[Held, Sequence[Entry]]]) -> list[bool | Exception]:
        """As Store.append."""
        self.times.append(time.monotonic())
        self.calls.append([(held, list(entries)) for held, entries in batches])
        await self.open.wait()
        await asyncio.sleep(self.slow)
        if self.errors:
            raise self.errors.pop(0)
        return [
            StoreAwayError("gone") if held.turn_id in self.away else held.turn_id not in self.lost
            for held, _ in batches
        ]

    def written(self, turn_id: str = "s.1") -> list[list[Entry]]:
        """What each call had for the turn."""
        return [entries for call in self.calls for held, entries in call if held.turn_id == turn_id]

    def called(self, times: int) -> Callable[[], "asyncio.Future[bool]"]:
        """A condition: so many calls have come."""

        async def condition() -> bool:
            return len(self.calls) >= times

        return lambda: asyncio.ensure_future(condition())


@pytest.fixture(autouse=True)
def _no_longest_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_INTERVAL", LONG)


@asynccontextmanager
async def running(store: Notebook | Store, seconds: float = LONG) -> AsyncIterator[Writer]:
    """A writer at work."""
    writer = Writer(cast("Store", store), seconds)
    task = asyncio.create_task(writer.run())
    try:
        yield writer
        assert not task.done(), "the writer died"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def log_of(writer: Writer, turn_id: str = "s.1", lost: Callable[[], None] = lambda: None) -> TurnLog:
    """The log of a turn that has two events."""
    return TurnLog(writer, Held(turn_id, 1, 2), lost)


async def test_the_first_text_goes_out_at_once_and_then_what_came_in_an_interval() -> None:
    """A client sees the first word without delay; after it one event holds all that came meanwhile."""
    store = Notebook()
    async with running(store, 0.1) as writer:
        log = log_of(writer)
        log.text("a")
        await wait_until(store.called(1))
        for piece in "bcd":
            log.text(piece)
        await wait_until(store.called(2))
        assert store.written() == [[delta("a")], [delta("bcd")]]
        assert store.times[1] - store.times[0] >= 0.099
        assert [call[0][0].seq for call in store.calls] == [2, 3]
        assert log.output == "abcd"


async def test_an_idle_turn_costs_nothing() -> None:
    """Without anything to write there is no call."""
    store = Notebook()
    async with running(store, 0.001) as writer:
        log_of(writer).text("a")
        await wait_until(store.called(1))
        other = log_of(writer, "t.1")
        other.text("b")
        await wait_until(store.called(2))
        assert store.written() == [[delta("a")]]


async def test_tool_events_keep_their_place_between_text() -> None:
    """An event of a tool goes out at once, with the text before it as an event before it."""
    store = Notebook()
    async with running(store) as writer:
        log = log_of(writer)
        log.text("a")
        await wait_until(store.called(1))
        log.text("b")
        log.text("c")
        log.event(CALL)
        log.text("d")
        await wait_until(store.called(2))
        assert store.written() == [[delta("a")], [delta("bc"), CALL, delta("d")]]


async def test_all_turns_go_out_together() -> None:
    """The flushes of all turns are one pipeline, in the order in which they came."""
    store = Notebook()
    async with running(store) as writer:
        for n in range(20):
            log_of(writer, f"s{n}.1").text(str(n))
        await wait_until(store.called(1))
        assert [held.turn_id for held, _ in store.calls[0]] == [f"s{n}.1" for n in range(20)]
        assert len(store.calls) == 1


async def test_a_pipeline_is_not_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Very many turns are written in several pipelines, none forgotten."""
    monkeypatch.setattr(writing, "PIPELINE_TURNS", 8)
    store = Notebook()
    async with running(store) as writer:
        for n in range(20):
            log_of(writer, f"s{n}.1").text("x")
        await wait_until(store.called(3))
        assert [len(call) for call in store.calls] == [8, 8, 4]


async def test_the_first_text_does_not_wait_for_the_interval() -> None:
    """A turn that begins between two flushes is not held up by the others."""
    store = Notebook()
    async with running(store) as writer:
        log_of(writer, "s.1").text("a")
        await wait_until(store.called(1))
        log_of(writer, "t.1").text("b")
        await wait_until(store.called(2))
        assert store.written("t.1") == [[delta("b")]]


async def pauses(store: Notebook, shortest: float, slow: Sequence[float]) -> list[float]:
    """Seconds between flushes, as quick as they come; `slow`: how long each takes."""
    async with running(store, shortest) as writer:
        log = log_of(writer)
        for n, store.slow in enumerate(slow, 1):
            log.text("x")
            await wait_until(store.called(n))
    return [later - earlier for earlier, later in pairwise(store.times)]


async def test_the_interval_grows_with_the_time_a_flush_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow flushes come less often, up to the longest interval. The first is urgent and does not count."""
    monkeypatch.setattr(writing, "MAX_INTERVAL", 0.1)
    found = await pauses(Notebook(), 0.001, [0, 0, 0.03, 0])
    assert found[2] >= writing.MAX_INTERVAL - 0.001


async def test_the_interval_does_not_grow_with_distance() -> None:
    """Flushes that all take as long are no load."""
    found = await pauses(Notebook(), 0.001, [0.02] * 5)
    assert found[3] < writing.FLUSH_SHARE * 0.02


async def test_the_longest_interval_shortens_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set counts, though it is longer."""
    monkeypatch.setattr(writing, "MAX_INTERVAL", 0.01)
    assert (await pauses(Notebook(), 0.2, [0] * 3))[1] > 0.19


async def test_while_redis_is_away_nothing_is_lost_or_doubled() -> None:
    """The same events are tried again with the same base, what comes meanwhile follows in order."""
    store = Notebook()
    store.errors = [StoreAwayError("gone"), StoreAwayError("slow"), StoreAwayError("gone")]
    async with running(store, 0.001) as writer:
        log = log_of(writer)
        log.text("a")
        await wait_until(store.called(2))
        log.text("b")
        log.event(CALL)
        await wait_until(store.called(4))
        assert store.written()[:2] == [[delta("a")]] * 2
        assert store.written()[3] == [delta("a"), delta("b"), CALL]
        assert [call[0][0].seq for call in store.calls] == [2, 2, 2, 2]


async def test_turns_of_a_node_that_is_away_hold_up_no_others() -> None:
    """On a cluster: they alone have something to write, again and again, when another's turn speaks."""
    store = Notebook()
    store.away = {"s.1"}
    async with running(store, 0.001) as writer:
        log_of(writer).text("a")
        await wait_until(store.called(2))
        log_of(writer, "t.1").text("b")
        await wait_until(store.called(3))
        assert store.times[1] - store.times[0] >= writing.AWAY_PAUSE
        assert store.written("t.1") == [[delta("b")]]
        store.away.clear()
        await wait_until(store.called(4))
        assert store.written()[-1] == [delta("a")]


async def test_a_lost_answer_doubles_no_event(settings: Settings, new_turn: MakeTurn) -> None:
    """On a real server: the events were written, the answer was lost, the retry adds nothing."""

    class Forgetful(Store):
        answers_lost = 2

        async def append(self, batches: Sequence[tuple[Held, Sequence[Entry]]]) -> list[bool | Exception]:
            replies = await super().append(batches)
            if self.answers_lost:
                self.answers_lost -= 1
                raise StoreAwayError("gone")
            return replies

    store = Forgetful.connect(settings)
    await store.submit(new_turn())
    held = await take(store)
    async with running(store, 0.01) as writer:
        log = TurnLog(writer, held, lambda: None)
        for piece in ("a", "b", "c"):
            log.text(piece)
        log.event(CALL)

        async def written() -> bool:
            return len(await store.frames("s.1", "default", 0)) >= 4 and log.held.seq >= 4

        await wait_until(written)
    found = (await events(store, "s.1"))[2:]
    assert [event.get("text", event["type"]) for event in found] == ["abc", "turn.tool_call"]
    await store.close()


async def test_close_gives_what_is_not_written() -> None:
    """The script that ends the turn writes the rest; the writer never does."""
    store = Notebook()
    async with running(store) as writer:
        log = log_of(writer)
        log.text("a")
        await wait_until(store.called(1))
        log.text("b")
        assert await log.close() == [delta("b")]
        assert log.held.seq == 3
        log.text("too late")
        log.event(CALL)
        log_of(writer, "t.1").text("x")
        await wait_until(store.called(2))
        assert store.written() == [[delta("a")]]


async def test_close_during_a_flush_waits_for_it() -> None:
    """What is on its way is counted before the rest is given, so that nothing comes twice."""
    store = Notebook()
    store.open.clear()
    async with running(store) as writer:
        log = log_of(writer)
        log.text("a")
        await wait_until(store.called(1))
        log.text("b")
        closing = asyncio.create_task(log.close())
        await asyncio.sleep(0)
        assert not closing.done()
        store.open.set()
        assert await closing == [delta("b")]
        assert log.held == Held("s.1", 1, 3)
        assert store.written() == [[delta("a")]]


async def test_a_stale_attempt_is_told() -> None:
    """The turn's runner learns that the lease is lost; the other turns go on."""
    told: list[str] = []
    store = Notebook()
    store.lost.add("s.1")
    async with running(store) as writer:
        log_of(writer, "s.1", lambda: told.append("s.1")).text("x")
        log_of(writer, "t.1", lambda: told.append("t.1")).text("x")

        async def some_told() -> bool:
            return bool(told)

        await wait_until(some_told)
    assert told == ["s.1"]


async def test_an_error_that_does_not_pass_does_not_end_the_writer() -> None:
    """The turns it meets are given up, to be taken up by a later attempt; others are still written."""
    told: list[str] = []
    store = Notebook()
    store.errors = [ValueError("a mistake")]
    async with running(store) as writer:
        log = log_of(writer, "s.1", lambda: told.append("s.1"))
        log.text("x")
        await wait_until(store.called(1))
        assert await log.close() == []
        assert told == ["s.1"]
        log_of(writer, "t.1", lambda: told.append("t.1")).text("y")
        await wait_until(store.called(2))
        assert store.written("t.1") == [[delta("y")]]


@pytest.mark.parametrize(
    ("text", "whole"), [("a\ud83d", "a"), ("\udc4b!", "\ufffd!"), ("\ud83d\udc4b", "👋"), ("ü", "ü")]
)
async def test_half_a_character_is_replaced(text: str, whole: str) -> None:
    """A provider that cuts a character in two spoils that character only; output and events agree."""
    store = Notebook()
    async with running(store) as writer:
        log = log_of(writer)
        log.text(text)
        await wait_until(store.called(1))
        assert store.written() == [[delta(whole)]]
        assert log.output == whole


async def test_a_character_cut_in_two_is_whole_again() -> None:
    """Each half may have a flush of its own; one that stays alone is replaced at the end or an event."""
    store = Notebook()
    async with running(store, 0.005) as writer:
        log = log_of(writer)
        log.text("a\ud83d")
        await wait_until(store.called(1))
        log.text("\udc4bb")
        await wait_until(store.called(2))
        assert store.written() == [[delta("a")], [delta("👋b")]]
        log.text("\ud83d")
        log.event(restarted("retry", 0))
        log.text("\ud83d")
        rest = await log.close()
        written = [entry for entries in store.written() for entry in entries] + rest
        assert written[2:] == [delta("\ufffd"), restarted("retry", 0), delta("\ufffd")]
        assert log.output == "a👋b\ufffd\ufffd"


@pytest.mark.slow
async def test_a_node_that_is_away_holds_up_no_turn_of_another() -> None:
    """Its turns are written again, in order, with what has come since; the others go on meanwhile."""
    store = Notebook()
    store.away.add("s.1")
    async with running(store, 0.001) as writer:
        here, there = log_of(writer, "t.1"), log_of(writer, "s.1")
        there.text("a")
        here.text("x")
        await wait_until(store.called(3))
        there.text("b")
        here.text("y")
        await wait_until(store.called(6))
        assert store.written("t.1") == [[delta("x")], [delta("y")]]
        assert store.written("s.1")[0] == [delta("a")]
        assert store.written("s.1")[-1] == [delta("a"), delta("b")]
        assert all(held.seq == 2 for call in store.calls for held, _ in call if held.turn_id == "default:s.1")
        assert await there.close() == [delta("a"), delta("b")]
