"""What a worker does on its loop, on a real store, with its keeper's thread."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.turnpool.scripts.kit import MakeTurn, contents, kinds, record
from turnpool.agent import Event, Turn
from turnpool.errors import StoreAwayError
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store.store import Store
from turnpool_workers import service
from turnpool_workers.service import WorkerService

pytestmark = pytest.mark.anyio

StartWorker = Callable[..., Awaitable[WorkerService]]


async def quick(turn: Turn) -> AsyncIterator[str | Event]:
    """Answer at once."""
    yield f"attempt {turn.attempt}"


async def slow(turn: Turn) -> AsyncIterator[str | Event]:
    """Answer at the second attempt only."""
    yield f"attempt {turn.attempt}"
    if turn.attempt == 1:
        await asyncio.Event().wait()


@pytest.fixture
async def start(settings: Settings) -> AsyncIterator[StartWorker]:
    """Starts workers, which are drained after the test."""
    workers: list[WorkerService] = []

    async def start(worker_id: str = "w1", drain_seconds: float = 0) -> WorkerService:
        changed = settings.model_copy(update={"drain_seconds": drain_seconds})
        worker = WorkerService(changed, {"simulated": quick, "slow": slow}, worker_id)
        await worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        if not worker._writing.done():
            worker.hurry()
            await worker.drain()


async def streams(store: Store, turn_id: str = "s.1", times: int = 1) -> None:
    """Wait until the turn has streamed so often."""

    async def condition() -> bool:
        return (await kinds(store, turn_id)).count("turn.output_text.delta") >= times

    await wait_until(condition)


async def wakeups(store: Store) -> int:
    """Wake-ups in the broker's list."""
    return int(await store.redis.llen("turnpool:turns"))


async def test_a_wake_up_runs_the_turn(store: Store, start: StartWorker, new_turn: MakeTurn) -> None:
    """The result, which Flower shows, names the turn; the next turn of the session wakes someone."""
    worker = await start()
    await store.submit(new_turn())
    await store.submit(new_turn())
    assert await worker.serve("turns") == "s.1 completed"
    assert await contents(store) == ["hello", "attempt 1"]

    async def woken() -> bool:
        return await wakeups(store) == 1

    await wait_until(woken)
    assert worker.info() == {"slots": 200, "running": 0, "draining": False}


async def test_a_wake_up_without_a_turn_is_harmless(start: StartWorker) -> None:
    """Wake-ups may be doubled."""
    assert await (await start()).serve("turns") == "nothing ready"


async def test_a_turn_of_an_agent_that_the_worker_does_not_have_waits(
    store: Store, start: StartWorker, new_turn: MakeTurn
) -> None:
    """As during an upgrade that adds an agent: the turns behind it run, it stays for who has the agent."""
    await store.submit(new_turn("new", agent="other"))
    await store.submit(new_turn("old"))
    worker = await start()
    assert await worker.serve("turns") == "old.1 completed"
    assert await worker.serve("turns") == "nothing ready"
    turn = await record(store, "new.1")
    assert (turn.status, turn.attempt) == (Status.QUEUED, 0)


@pytest.mark.slow
async def test_a_worker_that_joins_takes_the_turns_of_its_agents(
    settings: Settings, store: Store, start: StartWorker, new_turn: MakeTurn
) -> None:
    """No wake-up is there for them: its keeper finds them, and a worker without the agent takes none."""
    for n in range(3):
        await store.submit(new_turn(f"new{n}", agent="other"))
    old = await start("old")
    assert await old.serve("turns") == "nothing ready"
    new = WorkerService(settings, {"simulated": quick, "other": quick}, "new")
    await new.start()

    async def completed() -> bool:
        turns = [await record(store, f"new{n}.1") for n in range(3)]
        return all(turn.status is Status.COMPLETED for turn in turns)

    await wait_until(completed, 2)
    assert (await store.queue_state("turns")).parked == {}
    await new.drain()


@pytest.mark.slow
async def test_the_keeper_keeps_the_lease_and_lists_the_worker(
    store: Store, start: StartWorker, new_turn: MakeTurn
) -> None:
    """A turn that runs longer than a lease is not taken, and /v1/pool shows who runs it."""
    worker = await start()
    await store.submit(new_turn(agent="slow"))
    serving = asyncio.create_task(worker.serve("turns"))
    await streams(store)
    until = asyncio.get_running_loop().time() + 3 * store.settings.lease_seconds

    async def past_leases() -> bool:
        assert (await store.reap("turns")).requeued == ()
        return asyncio.get_running_loop().time() > until

    await wait_until(past_leases)
    (listed,) = await store.workers()
    assert (listed.id, listed.running, listed.slots, listed.draining) == ("w1", 1, 200, False)
    await store.cancel("s.1", "default")
    assert await serving == "s.1 cancelled"


async def test_a_cancel_is_seen_within_a_second(store: Store, start: StartWorker, new_turn: MakeTurn) -> None:
    """Whoever cancels, the worker ends the turn soon, with what was streamed."""
    worker = await start()
    await store.submit(new_turn(agent="slow"))
    serving = asyncio.create_task(worker.serve("turns"))
    await streams(store)
    await store.cancel("s.1", "default")
    assert await asyncio.wait_for(serving, 1) == "s.1 cancelled"
    assert await contents(store) == ["hello", "attempt 1"]


async def test_a_drain_lets_turns_end_that_fit_the_grace_time(
    store: Store, start: StartWorker, new_turn: MakeTurn
) -> None:
    """A turn that ends in time is not handed back; the worker leaves the list."""
    worker = await start(drain_seconds=30)
    await store.submit(new_turn(agent="slow"))
    serving = asyncio.create_task(worker.serve("turns"))
    await streams(store)
    draining = asyncio.create_task(worker.drain())
    await store.cancel("s.1", "default")
    await asyncio.wait_for(draining, 5)
    assert await serving == "s.1 cancelled"
    assert await store.workers() == []


async def test_a_claim_on_its_way_is_run_before_the_drain_ends(
    start: StartWorker, new_turn: MakeTurn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that came as the drain began has the grace time too, and no client sees it begin again."""
    worker = await start(drain_seconds=30)
    submitted = await store.submit(new_turn())
    claimed, go = asyncio.Event(), asyncio.Event()
    claim = worker._store.claim

    async def slow_claim(*arguments: Any, **named: Any) -> Any:
        found = await claim(*arguments, **named)
        claimed.set()
        await go.wait()
        return found

    monkeypatch.setattr(worker._store, "claim", slow_claim)
    serving = asyncio.create_task(worker.serve("turns"))
    await asyncio.wait_for(claimed.wait(), 5)
    draining = asyncio.create_task(worker.drain())
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.wait_for(serving, 5) == f"{submitted.turn_id} completed"
    await asyncio.wait_for(draining, 5)


async def test_a_drain_hands_back_what_does_not_fit(
    store: Store, start: StartWorker, new_turn: MakeTurn
) -> None:
    """After the grace time the turn is ready for others, woken by a wake-up, and no loss is counted."""
    worker = await start(drain_seconds=0.05)
    await store.submit(new_turn(agent="slow"))
    serving = asyncio.create_task(worker.serve("turns"))
    await streams(store)
    await worker.drain()
    assert await serving == "s.1 handed back"
    assert ((await record(store, "s.1")).status, (await record(store, "s.1")).losses) == (Status.QUEUED, 0)
    assert await wakeups(store) == 1
    other = await start("w2")
    assert await other.serve("turns") == "s.1 completed"
    assert "turn.restarted" in await kinds(store, "s.1")


async def test_a_second_signal_ends_the_grace_time(
    store: Store, start: StartWorker, new_turn: MakeTurn
) -> None:
    """Hurry hands back at once what a long grace time would have let run."""
    worker = await start(drain_seconds=600)
    await store.submit(new_turn(agent="slow"))
    serving = asyncio.create_task(worker.serve("turns"))
    await streams(store)
    draining = asyncio.create_task(worker.drain())

    async def told() -> bool:
        return [info.draining for info in await store.workers()] == [True]

    await wait_until(told)
    assert not draining.done()
    worker.hurry()
    await asyncio.wait_for(draining, 5)
    assert await serving == "s.1 handed back"


@pytest.mark.parametrize("hurried", [True, False])
async def test_a_drain_ends_though_redis_is_away(
    store: Store,
    start: StartWorker,
    new_turn: MakeTurn,
    monkeypatch: pytest.MonkeyPatch,
    *,
    hurried: bool,
) -> None:
    """What cannot be handed back is left to others after some seconds, or at once at a second signal."""
    monkeypatch.setattr(service, "HAND_BACK_SECONDS", 600 if hurried else 0.2)
    worker = await start()
    await store.submit(new_turn(agent="slow"))
    serving = asyncio.create_task(worker.serve("turns"))
    await streams(store)
    tried = asyncio.Event()

    async def away(*_: object) -> None:
        tried.set()
        raise StoreAwayError("gone")

    monkeypatch.setattr(worker._store, "hand_back", away)
    draining = asyncio.create_task(worker.drain())
    await asyncio.wait_for(tried.wait(), 5)
    if hurried:
        worker.hurry()
    await asyncio.wait_for(draining, 5)
    assert await serving == "given up"
    assert (await record(store, "s.1")).status is Status.IN_PROGRESS


async def test_a_draining_worker_takes_nothing(store: Store, start: StartWorker, new_turn: MakeTurn) -> None:
    """A wake-up that comes after the signal is passed on to others."""
    worker = await start()
    await store.submit(new_turn())
    worker.begin_drain()
    assert await worker.serve("turns") == "draining"
    assert (await record(store, "s.1")).attempt == 0
    await worker.drain()
    assert await wakeups(store) == 1


@pytest.mark.slow
async def test_the_next_worker_takes_over(store: Store, start: StartWorker, new_turn: MakeTurn) -> None:
    """A worker whose keeper is gone loses its turn; another's keeper finds it and wakes someone."""
    dead, other = await start("dead"), await start("other")
    await store.submit(new_turn(agent="slow"))
    serving = asyncio.create_task(dead.serve("turns"))
    await streams(store)
    await asyncio.to_thread(dead._keeper.close)

    async def requeued() -> bool:
        return await wakeups(store) == 1

    await wait_until(requeued, 5)
    assert (await record(store, "s.1")).losses == 1
    assert await other.serve("turns") == "s.1 completed"
    assert await contents(store) == ["hello", "attempt 2"]
    await dead.drain()
    assert await serving in {"s.1 handed back", "s.1 lease lost"}
    assert await contents(store) == ["hello", "attempt 2"]
