"""How one attempt at a turn ends before its agent does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from tests.turnpool.scripts.kit import MakeTurn, contents, events, lose, record, take
from tests.workers.conftest import Worker
from turnpool.agent import Agent, Event, StartOver, Turn
from turnpool.errors import StoreAwayError, TransientProviderError
from turnpool.events import Entry
from turnpool.models import Outcome
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store.store import Held, Store
from turnpool_workers.attempt.log import MAX_WAITING
from turnpool_workers.attempt.run import Runner, Stop
from turnpool_workers.attempt.writer import Writer

pytestmark = pytest.mark.anyio

Answer = AsyncIterator[str | Event]


async def endless(turn: Turn) -> Answer:
    """Say something, then take for ever."""
    yield "half"
    await asyncio.Event().wait()
    yield f"never {turn.id}"


async def stopped(worker: Worker, why: Stop, agent: Agent = endless) -> tuple[str, tuple[str, ...]]:
    """Run a turn and stop it once it has streamed."""
    runner = await worker.runner(agent)
    task = asyncio.create_task(runner.run())
    await worker.streamed("half")
    runner.stop(why)
    return await asyncio.wait_for(task, 5)


async def test_a_turn_past_its_deadline_fails(worker: Worker, store: Store) -> None:
    """The agent is stopped, what it streamed can be read, the session stays as it was."""
    assert await worker.run(endless, deadline_seconds=0.2) == "failed"
    turn = await record(store, "s.1")
    assert turn.error is not None
    assert (turn.error["code"], turn.output) == ("deadline_exceeded", "half")
    assert await contents(store) == []


async def test_a_cancelled_turn_keeps_its_partial_answer(worker: Worker, store: Store) -> None:
    """What was streamed stays in the session, marked incomplete."""
    assert await stopped(worker, Stop.CANCELLED) == ("cancelled", ())
    assert (await record(store, "s.1")).status is Status.CANCELLED
    assert (await events(store, "s.1"))[-1]["output"] == "half"
    assert (await store.messages("s", "default"))[1] == {
        "turn_id": "s.1",
        "role": "assistant",
        "content": "half",
        "status": "incomplete",
    }


async def test_a_turn_cancelled_before_it_starts_runs_no_agent(worker: Worker, store: Store) -> None:
    """A stop that comes before the run is not forgotten, and nothing is left in the session."""
    runner = await worker.runner(endless)
    runner.stop(Stop.CANCELLED)
    assert await runner.run() == ("cancelled", ())
    assert await contents(store) == []
    assert await worker.texts() == []


async def test_a_lost_turn_writes_nothing(worker: Worker, store: Store) -> None:
    """Who is told that the lease is lost leaves the turn to its new worker."""
    runner = await worker.runner(endless)
    task = asyncio.create_task(runner.run())
    await worker.streamed("half")
    await lose(store, Held("default:s.1", 1, 3))
    await take(store, "w2")
    before = await store.frames("s.1", "default", 0)
    runner.stop(Stop.LOST)
    assert await asyncio.wait_for(task, 5) == ("lease lost", ())
    assert await store.frames("s.1", "default", 0) == before
    assert (await record(store, "s.1")).worker == "w2"


async def test_a_worker_that_writes_too_late_learns_that_it_lost(worker: Worker, store: Store) -> None:
    """A refused event, or a refused end, stops the attempt without anyone telling it."""
    go = asyncio.Event()

    async def agent(_: Turn) -> Answer:
        yield "half"
        await go.wait()
        yield "stale"
        await asyncio.Event().wait()

    async def quick(_: Turn) -> Answer:
        await go.wait()
        yield "stale"

    for session, slow in (("s", agent), ("t", quick)):
        go.clear()
        runner = await worker.runner(slow, session_id=session)
        task = asyncio.create_task(runner.run())
        if slow is agent:
            await worker.streamed("half")
        await lose(store, Held(f"default:{session}.1", 1, 2))
        await take(store, "w2")
        go.set()
        assert await asyncio.wait_for(task, 5) == ("lease lost", ())
        assert "stale" not in await worker.texts(f"{session}.1")
        assert await contents(store, session) == []


async def test_a_drained_turn_is_handed_back(worker: Worker, store: Store) -> None:
    """It is ready for others with all it has streamed, and no loss is counted."""
    assert await stopped(worker, Stop.DRAINED) == ("handed back", ("turns",))
    turn = await record(store, "s.1")
    assert (turn.status, turn.losses) == (Status.QUEUED, 0)
    assert await worker.texts() == ["half"]


async def test_the_first_reason_counts_but_lost_is_lost(worker: Worker, store: Store) -> None:
    """A cancelled turn is not handed back; one that is lost is neither ended nor handed back."""
    runner = await worker.runner(endless)
    runner.stop(Stop.CANCELLED)
    runner.stop(Stop.DRAINED)
    assert (await runner.run())[0] == "cancelled"
    runner = await worker.runner(endless, session_id="t")
    runner.stop(Stop.CANCELLED)
    runner.stop(Stop.LOST)
    assert (await runner.run())[0] == "lease lost"
    assert (await record(store, "t.1")).status is Status.IN_PROGRESS


class Stubborn:
    """An agent that does not let itself be cancelled, until the test is done with it."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def __call__(self, _: Turn) -> Answer:
        """Answer."""
        yield "half"
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                yield "!"


@pytest.mark.parametrize(
    ("why", "result", "status"),
    [
        (Stop.CANCELLED, "cancelled", Status.CANCELLED),
        (Stop.DRAINED, "handed back", Status.QUEUED),
        (Stop.LOST, "lease lost", Status.IN_PROGRESS),
    ],
)
async def test_an_agent_that_swallows_its_cancel_is_left_behind(
    worker: Worker, store: Store, why: Stop, result: str, status: Status
) -> None:
    """After its time to clean up the turn goes on without it."""
    stubborn = Stubborn()
    started = asyncio.get_running_loop().time()
    assert (await stopped(worker, why, stubborn))[0] == result
    assert asyncio.get_running_loop().time() - started < 3
    assert (await record(store, "s.1")).status is status
    stubborn.released.set()
    agents = [task for task in asyncio.all_tasks() if task.get_name() == "agent s.1"]
    assert len(agents) == 1
    await asyncio.wait(agents)


async def test_an_agent_cleans_up_undisturbed(worker: Worker) -> None:
    """The keeper tells of a cancel again and again; the agent is cancelled once."""
    cleaned: list[str] = []

    async def agent(_: Turn) -> Answer:
        try:
            yield "half"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            cleaned.append("up")

    runner = await worker.runner(agent)
    task = asyncio.create_task(runner.run())
    await worker.streamed("half")
    while not task.done():
        runner.stop(Stop.CANCELLED)
        await asyncio.sleep(0.005)
    assert (await task)[0] == "cancelled"
    assert cleaned == ["up"]


async def test_an_agent_that_cancels_itself_fails(worker: Worker, store: Store) -> None:
    """It is not taken for a cancel by the client."""

    async def agent(_: Turn) -> Answer:
        yield "x"
        raise asyncio.CancelledError

    assert await worker.run(agent) == "failed"
    assert (await record(store, "s.1")).error is not None


class Flaky(Store):
    """A store whose answers are lost now and then, after the call was carried out or before."""

    async def settle(self, held: Held, entries: Sequence[Entry], outcome: Outcome) -> tuple[str, ...]:
        """As the real one, at the third call and with the first answer lost."""
        return await self._flaky("settle", lambda: super(Flaky, self).settle(held, entries, outcome))

    async def hand_back(
        self, held: Held, entries: Sequence[Entry], steps: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """As settle."""
        return await self._flaky("hand_back", lambda: super(Flaky, self).hand_back(held, entries, steps))

    async def _flaky(self, name: str, call: Callable[[], Awaitable[tuple[str, ...]]]) -> tuple[str, ...]:
        tries: dict[str, int] = self.__dict__.setdefault("tries", {})
        tries[name] = tries.get(name, 0) + 1
        if tries[name] == 1:
            await call()
        if tries[name] <= 2:
            msg = "gone"
            raise StoreAwayError(msg)
        return await call()


@pytest.mark.parametrize("why", [None, Stop.DRAINED])
async def test_the_end_is_written_when_redis_is_back(
    settings: Settings, writer: Writer, new_turn: MakeTurn, why: Stop | None
) -> None:
    """A turn that ends while Redis is away is ended, or handed back, once, with its last events once."""
    store = Flaky.connect(settings)
    worker = Worker(store, writer, new_turn)

    async def agent(_: Turn) -> Answer:
        yield "half"
        if why:
            await asyncio.Event().wait()

    runner = await worker.runner(agent)
    task = asyncio.create_task(runner.run())
    if why:
        await worker.streamed("half")
        runner.stop(why)
    await asyncio.wait_for(task, 5)
    assert store.__dict__["tries"] == {"hand_back" if why else "settle": 3}
    assert await worker.texts() == ["half"]
    assert await contents(store) == ([] if why else ["hello", "half"])
    await store.close()


@pytest.mark.parametrize("more", ["after ", StartOver()])
async def test_an_agent_that_goes_on_after_its_end_changes_nothing(
    worker: Worker, store: Store, more: str | Event
) -> None:
    """What it says after the time to clean up is neither streamed nor stored, and it ends there."""
    goes_on = asyncio.Event()
    said: list[str | Event] = []

    async def agent(_: Turn) -> Answer:
        yield "before "
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await goes_on.wait()
        while len(said) < 3:
            said.append(more)
            yield more

    runner = await worker.runner(agent)
    running = asyncio.create_task(runner.run())
    await worker.streamed("before ")
    runner.stop(Stop.CANCELLED)
    assert (await running)[0] == "cancelled"
    runner._log._waiting = MAX_WAITING + 1
    goes_on.set()
    assert runner._task
    await asyncio.wait_for(runner._task, 5)
    assert (await record(store, "s.1")).output == runner._log.output == "before "
    assert said == [more]


@pytest.mark.parametrize("why", [Stop.CANCELLED, Stop.DRAINED])
async def test_an_agent_that_takes_its_cancellation_for_its_provider_is_not_run_again(
    worker: Worker, why: Stop
) -> None:
    """A library may turn every exception into an error that may pass."""
    ran: list[int] = []

    async def agent(turn: Turn) -> Answer:
        ran.append(turn.attempt)
        yield "half"
        if len(ran) == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as error:
                raise TransientProviderError("broke off", 0) from error

    assert (await stopped(worker, why, agent))[0] in {"cancelled", "handed back"}
    assert ran == [1]
    assert await worker.texts() == ["half"]


async def test_a_claim_with_little_time_left_gets_just_that(worker: Worker, store: Store) -> None:
    """The deadline counts from when the turn was accepted, by the server's clock."""
    await store.submit(worker.new_turn(deadline_seconds=60))
    claim, _ = await store.claim("turns", "w1")
    assert claim is not None
    short = replace(claim, remaining_seconds=0.05)
    assert (await Runner(short, endless, store, worker.writer, 0).run())[0] == "failed"
