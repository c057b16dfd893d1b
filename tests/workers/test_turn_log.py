"""Events that a server has lost, and events that wait for one that is away."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.conftest import wait_until
from tests.turnpool.scripts.kit import MakeTurn, contents, events, kinds, lose_events, record
from tests.workers.conftest import Worker
from turnpool import keys
from turnpool.agent import Event, Turn
from turnpool.errors import StoreAwayError
from turnpool.events import Entry, data_of, delta
from turnpool.states import Status
from turnpool.store.store import Held, Store
from turnpool_workers.attempt.log import KEPT, MAX_WAITING, TurnLog
from turnpool_workers.attempt.run import Runner, Stop
from turnpool_workers.attempt.writer import Writer

pytestmark = pytest.mark.anyio

WORDS = [f"w{k} " for k in range(40)]


class Typist:
    """An agent that types when it is told to."""

    def __init__(self) -> None:
        self.keys: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self, _: Turn) -> AsyncIterator[str | Event]:
        """Answer."""
        while word := await self.keys.get():
            yield word


@pytest.fixture
def typist() -> Typist:
    """An agent."""
    return Typist()


@pytest.fixture
async def runner(worker: Worker, typist: Typist) -> Runner:
    """Runs the typist."""
    return await worker.runner(typist)


async def type_words(typist: Typist, worker: Worker, words: list[str]) -> None:
    """Type, one event a word."""
    for word in words:
        before = "".join(await worker.texts())
        typist.keys.put_nowait(word)
        await worker.streamed(before + word)


@pytest.mark.parametrize("then", ["more text", "the end", "a hand-back"])
async def test_events_that_the_server_lost_are_written_again(
    worker: Worker, store: Store, typist: Typist, runner: Runner, then: str
) -> None:
    """Under the ids that clients know them by: who has them gets the rest, who has not gets all."""
    task = asyncio.create_task(runner.run())
    await type_words(typist, worker, WORDS[:5])
    known = await store.frames("s.1", "default", 0)
    await lose_events(store, 3)
    if then == "more text":
        await type_words_after_loss(typist, worker, WORDS[5])
    if then == "a hand-back":
        runner.stop(Stop.DRAINED)
        assert (await task)[0] == "handed back"
    else:
        typist.keys.put_nowait("")
        assert (await task)[0] == "completed"
    again = await store.frames("s.1", "default", 0)
    told = [(data["seq"], data.get("text")) for data in map(data_of, again)]
    assert told[: len(known)] == [(data["seq"], data.get("text")) for data in map(data_of, known)]
    assert [seq for seq, _ in told] == list(range(1, len(told) + 1))
    if then != "a hand-back":
        assert await contents(store) == ["hello", "".join(await worker.texts())]


async def type_words_after_loss(typist: Typist, worker: Worker, word: str) -> None:
    """Type a word whose event brings back those that were lost."""
    typist.keys.put_nowait(word)
    await worker.streamed("".join(WORDS[:6]))


async def test_a_last_event_of_any_size_is_written_again(
    worker: Worker, store: Store, typist: Typist, runner: Runner
) -> None:
    """What was written last is what a server that dies loses."""
    task = asyncio.create_task(runner.run())
    words = ["a", "x" * (2 * KEPT)]
    await type_words(typist, worker, words)
    await lose_events(store, 1)
    typist.keys.put_nowait("b")
    await worker.streamed("".join(words) + "b")
    typist.keys.put_nowait("")
    assert (await task)[0] == "completed"


async def test_a_turn_whose_events_are_gone_for_good_is_left_to_others(
    worker: Worker, store: Store, typist: Typist, runner: Runner
) -> None:
    """What was written long ago is not kept; the turn is not settled with a hole in its log."""
    task = asyncio.create_task(runner.run())
    await type_words(typist, worker, ["x" * (KEPT // 2)] * 3)
    await lose_events(store, 3)
    typist.keys.put_nowait("more")
    assert (await asyncio.wait_for(task, 5))[0] == "lease lost"
    assert (await record(store, "s.1")).status is Status.IN_PROGRESS


async def test_an_end_that_the_server_lost_is_written_again(
    worker: Worker, store: Store, typist: Typist, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server took over that had neither the end nor the last words: it gets both, under the same ids."""
    task = asyncio.create_task(runner.run())
    await type_words(typist, worker, WORDS[:5])
    turn, log = keys.turn(store.prefix, "default:s.1"), keys.log(store.prefix, "default:s.1")
    line, messages = keys.line(store.prefix, "default:s"), keys.messages(store.prefix, "default:s")
    before = {key: await store.redis.dump(key) for key in (turn, log, line)}
    confirm, told = runner._store.confirm, []

    async def lose(turn_id: str, **fields: str) -> bool:
        told.append(fields.get("status"))
        if len(told) > 1:
            return await confirm(turn_id, **fields)
        for key, value in before.items():
            await store.redis.restore(key, 60_000, value, replace=True)
        await store.redis.delete(messages)
        await lose_events(store, 2)
        return False

    monkeypatch.setattr(runner._store, "confirm", lose)
    typist.keys.put_nowait(WORDS[5])
    typist.keys.put_nowait("")
    assert (await asyncio.wait_for(task, 5))[0] == "completed"
    assert told == [Status.COMPLETED] * 2
    assert await contents(store) == ["hello", "".join(WORDS[:6])]
    assert "".join(await worker.texts()) == "".join(WORDS[:6])
    assert [event["seq"] for event in await events(store, "s.1")] == list(range(1, 10))


class Away(Store):
    """A store that can be away for events."""

    away = False

    async def append(self, batches: Sequence[tuple[Held, Sequence[Entry]]]) -> list[bool | Exception]:
        """Write, or say that it is away."""
        if self.away:
            raise StoreAwayError("gone")
        return await super().append(batches)


async def test_an_agent_waits_when_too_much_waits_for_redis(store: Store, new_turn: MakeTurn) -> None:
    """What a worker holds back is bounded; when Redis is back all is written, and the agent goes on."""
    said = 0
    piece = "x" * 10_000

    async def agent(_: Turn) -> AsyncIterator[str | Event]:
        nonlocal said
        for _piece in range(100):
            said += len(piece)
            yield piece

    away = Away(store.nodes, store.settings)
    away.away = True
    writer = Writer(away, 0.005)
    writing = asyncio.create_task(writer.run())
    await away.submit(new_turn())
    claim, _ = await away.claim("turns", "w1")
    assert claim is not None
    task = asyncio.create_task(Runner(claim, agent, away, writer, 0).run())

    async def full() -> bool:
        return said > MAX_WAITING

    await wait_until(full)
    await asyncio.sleep(0.1)  # time in which it would say more, if it did
    assert said <= MAX_WAITING + 2 * len(piece)
    away.away = False
    assert (await task)[0] == "completed"
    assert await contents(store) == ["hello", piece * 100]
    assert (await kinds(store, "s.1"))[-1] == "turn.completed"
    assert "".join(event.get("text", "") for event in await events(store, "s.1")) == piece * 100
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_log_that_has_closed_takes_nothing_more(store: Store) -> None:
    """Nor does it hold up who waits for room in it, though nothing is written any more."""
    log = TurnLog(Writer(store, 60), Held("default:s.1", 1, 0), lambda: None)
    text = "x" * (MAX_WAITING + 1)
    log.text(text)
    waits = asyncio.create_task(log.room())
    assert (await asyncio.wait({waits}, timeout=0.01))[1] == {waits}
    log.refuse()
    await asyncio.wait_for(waits, 5)
    log.text("more")
    log.event(delta("more"))
    assert log.output == text
    assert await log.close() == [delta(text)]
