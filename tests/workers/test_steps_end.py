"""Steps of a turn that stops, or ends: what has ended is recorded, and nothing goes on."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.turnpool.scripts.kit import record
from tests.workers.conftest import Worker
from turnpool import keys
from turnpool.agent import Event, Turn
from turnpool.store.store import Held, Store
from turnpool_workers.attempt.run import Stop

pytestmark = pytest.mark.anyio

Answer = AsyncIterator[str | Event]


async def fail_when(ready: Callable[[], bool]) -> None:
    """A step that fails as soon as others are where the test wants them."""

    async def there() -> bool:
        await asyncio.sleep(0)
        return ready()

    await wait_until(there)
    raise ValueError("no")


@pytest.mark.parametrize("why", [Stop.DRAINED, Stop.CANCELLED])
async def test_a_step_that_has_ended_is_recorded_though_the_turn_stops(
    worker: Worker, store: Store, monkeypatch: pytest.MonkeyPatch, why: Stop
) -> None:
    """The stop comes while the result is on its way: it arrives before the turn is given away."""
    record_step, on_its_way, back = store.record_step, asyncio.Event(), asyncio.Event()

    async def slowly(held: Held, name: str, result: bytes | None) -> bytes:
        if result:
            on_its_way.set()
            await back.wait()
        return await record_step(held, name, result)

    async def agent(turn: Turn) -> Answer:
        yield await turn.step("look up", lambda: "found")

    monkeypatch.setattr(store, "record_step", slowly)
    runner = await worker.runner(agent)
    running = asyncio.create_task(runner.run())
    await on_its_way.wait()
    runner.stop(why)
    await asyncio.wait({running}, timeout=0.3)
    assert not running.done()
    back.set()
    await running
    steps = await store.redis.hgetall(keys.steps(store.prefix, "default:s.1"))
    assert list(steps.values()) == [b'"found"']


@pytest.mark.parametrize("at_most_once", [False, True])
@pytest.mark.parametrize("meanwhile", [True, False])
async def test_a_step_that_ends_as_the_turn_stops_is_recorded(
    worker: Worker, store: Store, *, meanwhile: bool, at_most_once: bool
) -> None:
    """The stop comes in the step's last moment, or right after it: there is no gap for it to fall into."""
    ran: list[int] = []

    async def agent(turn: Turn) -> Answer:
        async def look_up() -> str:
            ran.append(turn.attempt)
            if meanwhile:
                runner.stop(Stop.DRAINED)
            else:
                asyncio.get_running_loop().call_soon(runner.stop, Stop.DRAINED)
            return "found"

        yield await turn.step("look up", look_up, at_most_once=at_most_once)

    runner = await worker.runner(agent)
    assert (await runner.run())[0] == "handed back"
    assert await (await worker.next(agent)).run() == ("completed", ())
    assert ran == [1]
    assert (await record(store, "s.1")).output == "found"


async def test_steps_that_run_when_the_turn_ends_are_cancelled(worker: Worker) -> None:
    """One of several fails, and the turn with it: the others do not go on behind its back."""
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    async def agent(turn: Turn) -> Answer:
        await asyncio.gather(turn.step("endless", endless), turn.step("fail", fail))
        yield "never"

    assert await worker.run(agent) == "failed"
    assert ended == ["endless"]


@pytest.mark.parametrize("at_most_once", [False, True])
async def test_a_step_about_to_begin_when_the_turn_ends_does_not(
    worker: Worker, store: Store, monkeypatch: pytest.MonkeyPatch, *, at_most_once: bool
) -> None:
    """It asks whether the attempt still holds the turn, and gets its answer once another has failed."""
    record_step, asks, answered = store.record_step, asyncio.Event(), asyncio.Event()
    ran: list[str] = []
    begun: list[asyncio.Future[Any]] = []

    async def slowly(held: Held, name: str, result: bytes | None) -> bytes:
        recorded = await record_step(held, name, result)
        if name.startswith("late:"):
            asks.set()
            await answered.wait()
        return recorded

    async def agent(turn: Turn) -> Answer:
        late = turn.step("late", lambda: ran.append("late"), at_most_once=at_most_once)
        begun.append(asyncio.ensure_future(late))
        await turn.step("fail", partial(fail_when, asks.is_set))
        yield "never"

    monkeypatch.setattr(store, "record_step", slowly)
    runner = await worker.runner(agent)
    running = asyncio.create_task(runner.run())

    async def ended() -> bool:
        return runner.turn.cancelled

    await wait_until(ended)
    answered.set()
    assert (await running)[0] == "failed"
    await asyncio.wait(begun)
    assert begun[0].cancelled()
    assert ran == []


async def test_a_step_asked_for_after_the_end_leaves_no_trace(
    worker: Worker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may run once only and has not begun is not taken for interrupted by the next attempt."""
    record_step, on_its_way, back = store.record_step, asyncio.Event(), asyncio.Event()
    left: list[asyncio.Task[Any]] = []

    async def slowly(held: Held, name: str, result: bytes | None) -> bytes:
        if result and name.startswith("look up:"):
            on_its_way.set()
            await back.wait()
        return await record_step(held, name, result)

    async def late(turn: Turn) -> None:
        async def over() -> bool:
            return runner._log.closed

        await wait_until(over)
        await turn.step("late", lambda: 1, at_most_once=True)

    async def agent(turn: Turn) -> Answer:
        left.append(asyncio.create_task(late(turn)))
        yield await turn.step("look up", lambda: "found")

    monkeypatch.setattr(store, "record_step", slowly)
    runner = await worker.runner(agent)
    running = asyncio.create_task(runner.run())
    await on_its_way.wait()
    runner.stop(Stop.DRAINED)
    await asyncio.wait(left)
    back.set()
    assert (await running)[0] == "handed back"
    steps = await store.redis.hgetall(keys.steps(store.prefix, "default:s.1"))
    assert list(steps.values()) == [b'"found"']


@pytest.mark.parametrize("written", [False, True])
async def test_a_step_that_was_marked_and_not_called_is_run_by_the_next_attempt(
    worker: Worker, store: Store, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    """The drain comes while the mark of what may run once only is on its way, or the answer to it."""
    record_step, on_its_way, back = store.record_step, asyncio.Event(), asyncio.Event()
    ran: list[int] = []

    async def slowly(held: Held, name: str, result: bytes | None) -> bytes:
        if written:
            await record_step(held, name, result)
        on_its_way.set()
        await back.wait()
        return await record_step(held, name, result)

    async def agent(turn: Turn) -> Answer:
        async def charge() -> str:
            ran.append(turn.attempt)
            return "charged"

        yield await turn.step("charge", charge, at_most_once=True)

    monkeypatch.setattr(store, "record_step", slowly)
    runner = await worker.runner(agent)
    running = asyncio.create_task(runner.run())
    await on_its_way.wait()
    runner.stop(Stop.DRAINED)
    back.set()
    assert (await running)[0] == "handed back"
    assert await store.redis.hgetall(keys.steps(store.prefix, "default:s.1")) == {}
    assert (await (await worker.next(agent)).run())[0] == "completed"
    assert ran == [2]


async def test_a_step_that_waits_for_a_thread_is_run_by_the_next_attempt(worker: Worker) -> None:
    """All threads are taken when the drain comes, so what may run once only was not called."""
    free, ran = threading.Event(), []

    async def agent(turn: Turn) -> Answer:
        yield str(await turn.step("charge", lambda: ran.append(turn.attempt), at_most_once=True))

    with ThreadPoolExecutor(1) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        threads.submit(free.wait)
        runner = await worker.runner(agent)
        running = asyncio.create_task(runner.run())

        async def waits() -> bool:
            return threads._work_queue.qsize() == 1

        try:
            await wait_until(waits)
            runner.stop(Stop.DRAINED)
            assert (await running)[0] == "handed back"
        finally:
            free.set()
        assert (await (await worker.next(agent)).run())[0] == "completed"
    assert ran == [2]


@pytest.mark.slow
async def test_a_step_that_is_asked_for_again_while_it_is_recorded_is_not_run_again(
    worker: Worker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent had a time-out of its own, which came when the step had ended."""
    record_step, ran = store.record_step, []

    async def slowly(held: Held, name: str, result: bytes | None) -> bytes:
        if result:
            await asyncio.sleep(0.5)
        return await record_step(held, name, result)

    async def agent(turn: Turn) -> Answer:
        with suppress(TimeoutError):
            await asyncio.wait_for(turn.step("look up", lambda: ran.append("look up")), 0.2)
        yield str(await turn.step("look up", lambda: ran.append("look up")))

    monkeypatch.setattr(store, "record_step", slowly)
    assert await worker.run(agent) == "completed"
    assert ran == ["look up"]


async def test_who_waits_for_a_step_that_the_end_cancels_does_not_run_it(worker: Worker) -> None:
    """One step asked for twice at once: the second does not take the place of the first."""
    ran: list[str] = []
    asked: list[asyncio.Future[Any]] = []

    async def endless() -> None:
        ran.append("endless")
        await asyncio.Event().wait()

    async def agent(turn: Turn) -> Answer:
        asked.extend(asyncio.ensure_future(turn.step("endless", endless)) for _ in range(2))
        await turn.step("fail", partial(fail_when, lambda: bool(ran)))
        yield "never"

    assert await worker.run(agent) == "failed"
    _, still = await asyncio.wait(asked, timeout=2)
    for step in still:
        step.cancel()
    assert (still, ran) == (set(), ["endless"])


async def test_a_thread_sees_that_the_turn_has_ended(worker: Worker) -> None:
    """Nothing stops it, so it looks; not only a cancel is an end."""
    begun, ended = threading.Event(), threading.Event()
    give_up = time.monotonic() + 5

    async def agent(turn: Turn) -> Answer:
        def look() -> None:
            begun.set()
            while not turn.cancelled and time.monotonic() < give_up:
                time.sleep(0.001)
            if turn.cancelled:
                ended.set()

        await asyncio.gather(turn.step("look", look), turn.step("fail", partial(fail_when, begun.is_set)))
        yield "never"

    assert await worker.run(agent) == "failed"
    assert await asyncio.to_thread(ended.wait, 5)
