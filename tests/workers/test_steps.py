"""Steps of a turn: run once, recorded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.turnpool.scripts.kit import lose, record
from tests.workers.conftest import Worker
from turnpool import keys
from turnpool.agent import MAX_STEP_BYTES, Agent, Event, Turn
from turnpool.errors import TransientProviderError
from turnpool.store.store import Store
from turnpool_workers.attempt.run import Runner, Stop

pytestmark = pytest.mark.anyio

Answer = AsyncIterator[str | Event]


async def interrupt(worker: Worker, agent: Agent, ran: list[Any]) -> None:
    """Run the first attempt until a step is under way, and hand the turn back."""
    runner = await worker.runner(agent)
    task = asyncio.create_task(runner.run())

    async def under_way() -> bool:
        return bool(ran)

    await wait_until(under_way)
    runner.stop(Stop.DRAINED)
    assert (await task)[0] == "handed back"


async def error_of(store: Store) -> tuple[str, str]:
    """Code and message that the turn failed with."""
    error = (await record(store, "s.1")).error
    assert error is not None
    return error["code"], error["message"]


async def test_a_step_runs_once_in_the_life_of_a_turn(worker: Worker, store: Store) -> None:
    """A later attempt gets the recorded result, of plain functions and coroutines alike."""
    ran: list[str] = []

    async def look_up(what: str) -> dict[str, str]:
        ran.append(what)
        return {"found": what}

    def add(a: int, b: int) -> int:
        ran.append("add")
        return a + b

    async def agent(turn: Turn) -> Answer:
        found = await turn.step("look up", look_up, "salt")
        total = await turn.step("add", add, 1, 2)
        yield f"{found['found']} {total} {turn.attempt}"
        if turn.attempt == 1:
            await asyncio.Event().wait()

    runner = await worker.runner(agent)
    task = asyncio.create_task(runner.run())
    await worker.streamed("salt 3 1")
    runner.stop(Stop.DRAINED)
    await task
    assert (await (await worker.next(agent)).run())[0] == "completed"
    assert ran == ["salt", "add"]
    assert (await record(store, "s.1")).output == "salt 3 2"


async def test_a_step_is_its_name_and_its_arguments(worker: Worker, store: Store) -> None:
    """A model that is asked again may call a tool with other arguments: that is another step."""
    ran: list[int] = []

    async def double(n: int) -> int:
        ran.append(n)
        return 2 * n

    async def agent(turn: Turn) -> Answer:
        for n in (1, 2, 1):
            yield f"{await turn.step('double', double, n)} "
        yield str(await turn.step("double again", double, 1))

    assert await worker.run(agent) == "completed"
    assert (await record(store, "s.1")).output == "2 4 2 2"
    assert ran == [1, 2, 1]


@pytest.mark.parametrize("at_most_once", [False, True])
async def test_a_step_that_was_interrupted(worker: Worker, store: Store, *, at_most_once: bool) -> None:
    """Is run again, unless it may run once only: then nobody knows what it did, and the turn fails."""
    ran: list[int] = []

    async def charge(turn: Turn) -> str:
        ran.append(turn.attempt)
        if turn.attempt == 1:
            await asyncio.Event().wait()
        return "charged"

    async def agent(turn: Turn) -> Answer:
        async def once() -> str:
            return await charge(turn)

        yield await turn.step("charge", once, at_most_once=at_most_once)

    await interrupt(worker, agent, ran)
    result, _ = await (await worker.next(agent)).run()
    if at_most_once:
        assert (result, ran) == ("failed", [1])
        code, message = await error_of(store)
        assert code == "step_interrupted"
        assert "'charge' may run once only" in message
    else:
        assert (result, ran) == ("completed", [1, 2])


async def test_a_step_that_may_run_once_and_ended_is_not_run_again(worker: Worker, store: Store) -> None:
    """Its result is recorded as any other's; later attempts get it."""
    ran: list[int] = []

    async def agent(turn: Turn) -> Answer:
        async def charge() -> int:
            return turn.attempt

        yield str(await turn.step("charge", charge, at_most_once=True))
        if turn.attempt == 1:
            ran.append(1)
            await asyncio.Event().wait()

    await interrupt(worker, agent, ran)
    assert (await (await worker.next(agent)).run())[0] == "completed"
    assert (await record(store, "s.1")).output == "1"


async def test_a_step_that_may_run_once_and_failed_is_not_tried_again(worker: Worker, store: Store) -> None:
    """What it did before it failed is not known either."""
    ran: list[int] = []

    async def charge() -> None:
        ran.append(1)
        raise TransientProviderError("busy")

    async def agent(turn: Turn) -> Answer:
        yield str(await turn.step("charge", charge, at_most_once=True))

    assert await worker.run(agent) == "failed"
    code, message = await error_of(store)
    assert code == "step_interrupted"
    assert "raised TransientProviderError; whether" in message
    assert ran == [1]


@pytest.mark.parametrize(
    ("argument", "result", "says"),
    [
        (object(), 1, "TypeError: step 'x': its arguments: Type is not JSON serializable: object"),
        (1, object(), "TypeError: step 'x': its result: Type is not JSON serializable: object"),
        (
            "x" * MAX_STEP_BYTES,
            1,
            "ValueError: step 'x': its arguments: 1000004 bytes, at most",
        ),
        (
            1,
            "x" * MAX_STEP_BYTES,
            "ValueError: step 'x': its result: 1000002 bytes, at most",
        ),
    ],
)
async def test_what_cannot_be_recorded_fails_the_turn(
    worker: Worker, store: Store, argument: object, result: object, says: str
) -> None:
    """With a word on what is wrong."""

    async def agent(turn: Turn) -> Answer:
        yield str(await turn.step("x", lambda _: result, argument))

    assert await worker.run(agent) == "failed"
    code, message = await error_of(store)
    assert (code, message[: len(says)]) == ("agent_error", says)


async def test_a_step_asked_for_twice_at_once_runs_once(worker: Worker, store: Store) -> None:
    """Who asks while it runs gets its result too, also if it may run at most once."""
    ran: list[str] = []

    async def charge() -> str:
        ran.append("charge")
        await asyncio.sleep(0)
        return "charged"

    async def agent(turn: Turn) -> Answer:
        steps = (turn.step("charge", charge, at_most_once=True) for _ in range(3))
        yield " ".join(await asyncio.gather(*steps))

    assert await worker.run(agent) == "completed"
    assert ran == ["charge"]
    assert (await record(store, "s.1")).output == "charged charged charged"


@pytest.mark.parametrize("at_most_once", [False, True])
async def test_a_worker_that_lost_the_turn_unawares_runs_no_step(
    worker: Worker, store: Store, *, at_most_once: bool
) -> None:
    """It stood still, others had the turn and ended it; then it goes on where it stood."""
    ran: list[int] = []
    goes_on = asyncio.Event()

    async def agent(turn: Turn) -> Answer:
        yield "here "
        if turn.attempt == 1:
            await goes_on.wait()
        await turn.step("charge", lambda: ran.append(turn.attempt), at_most_once=at_most_once)

    zombie = await worker.runner(agent)
    running = asyncio.create_task(zombie.run())
    await worker.streamed("here ")
    await lose(store, zombie._log.held)
    claim, _ = await store.claim("turns", "w2")
    assert claim is not None
    await Runner(claim, agent, store, worker.writer, 0).run()
    goes_on.set()
    assert (await running)[0] == "lease lost"
    assert ran == [2]


@pytest.mark.parametrize("at_most_once", [False, True])
async def test_a_result_that_is_found_as_a_step_begins_is_used(
    worker: Worker, store: Store, *, at_most_once: bool
) -> None:
    """The claim did not bring it: it was recorded since."""
    ran: list[int] = []

    async def agent(turn: Turn) -> Answer:
        await turn.step("charge", lambda: "recorded")
        turn.steps.recorded.clear()
        yield await turn.step("charge", lambda: ran.append(1), at_most_once=at_most_once)

    assert await worker.run(agent) == "completed"
    assert ran == []
    assert (await record(store, "s.1")).output == "recorded"


async def test_the_order_of_keys_in_arguments_does_not_matter(worker: Worker) -> None:
    """A model that says its arguments again may say them in another order."""
    ran: list[dict[str, int]] = []

    async def agent(turn: Turn) -> Answer:
        await turn.step("note", ran.append, {"a": 1, "b": 2})
        await turn.step("note", ran.append, {"b": 2, "a": 1})
        yield "noted"

    assert await worker.run(agent) == "completed"
    assert len(ran) == 1


async def test_whatever_gives_a_result_can_be_a_step(worker: Worker, store: Store) -> None:
    """Also what only gives something to await: a partial of a coroutine, a lambda, an object."""

    async def double(n: int) -> int:
        return 2 * n

    class Tool:
        async def __call__(self, n: int) -> int:
            return 2 * n

    async def agent(turn: Turn) -> Answer:
        functions: dict[str, Callable[[], Any]] = {
            "partial": partial(double, 1),
            "lambda": lambda: double(2),
            "object": partial(Tool(), 3),
        }
        for name, function in functions.items():
            yield f"{await turn.step(name, function)} "

    assert await worker.run(agent) == "completed"
    assert (await record(store, "s.1")).output == "2 4 6 "


async def test_a_step_that_the_server_lost_is_recorded_again(
    worker: Worker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server took over that had not heard of it; the step is not run again by anybody."""
    steps, confirm = keys.steps(store.prefix, "default:s.1"), store.confirm_step
    told: list[bytes] = []

    async def lose(turn_id: str, name: str, recorded: bytes) -> bool:
        if not told:
            await store.redis.delete(steps)
        told.append(recorded)
        # Read in any case, as with TURNPOOL_DURABILITY=replica.
        return await store.redis.hget(steps, name) == recorded and await confirm(turn_id, name, recorded)

    async def agent(turn: Turn) -> Answer:
        yield await turn.step("look up", lambda: "found")

    monkeypatch.setattr(store, "confirm_step", lose)
    assert await worker.run(agent) == "completed"
    assert told == [b'"found"'] * 2
    assert list((await store.redis.hgetall(steps)).values()) == [b'"found"']
