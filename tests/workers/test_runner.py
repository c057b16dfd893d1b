"""One attempt at a turn, on a real store."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.turnpool.scripts.kit import contents, events, kinds, record
from tests.workers.conftest import Worker
from turnpool.agent import Event, StartOver, ToolCall, ToolResult, Turn, Usage, continues
from turnpool.errors import ProviderError, TransientProviderError
from turnpool.states import Status
from turnpool.store.store import Store
from turnpool_workers.attempt.run import Stop

pytestmark = pytest.mark.anyio

Answer = AsyncIterator[str | Event]


async def test_a_turn_is_completed(worker: Worker, store: Store) -> None:
    """Text, tools and usage of the agent become events, output, usage and messages."""

    async def agent(turn: Turn) -> Answer:
        assert (turn.id, turn.session_id, turn.attempt, turn.params) == ("s.1", "s", 1, {"p": 1})
        assert turn.messages == turn.input == [{"role": "user", "content": "hello"}]
        assert not turn.cancelled
        yield "a"
        yield ToolCall("c", "add", [1, 2])
        yield ToolResult("c", 3)
        yield ""
        yield Usage(1, 2)
        yield "b"
        yield Usage(10, 20)

    assert await worker.run(agent, params={"p": 1}) == "completed"
    turn = await record(store, "s.1")
    usage = {"input_tokens": 11, "output_tokens": 22}
    assert (turn.status, turn.output, turn.usage) == (Status.COMPLETED, "ab", usage)
    assert await contents(store) == ["hello", "ab"]
    delta = "turn.output_text.delta"
    assert (await kinds(store, "s.1"))[2:] == [
        delta,
        "turn.tool_call",
        "turn.tool_result",
        delta,
        "turn.completed",
    ]
    last = (await events(store, "s.1"))[-1]
    assert (last["output"], last["usage"]) == ("ab", usage)


async def test_an_attempt_that_has_ended_is_freed_at_once(worker: Worker) -> None:
    """It holds the whole conversation; collections of garbage come seldom."""

    async def agent(turn: Turn) -> Answer:
        await turn.step("count", len, "abc")
        yield ToolCall("c", "add", [1, 2])
        yield "a"

    runner = await worker.runner(agent)
    freed = asyncio.Event()
    weakref.finalize(runner.turn, freed.set)
    gc.disable()
    try:
        await runner.run()
        del runner
        # What ended it still has its last callbacks to run.
        async with asyncio.timeout(1):
            await freed.wait()
    finally:
        gc.enable()


async def test_the_next_turn_of_the_session_is_woken_and_gets_the_history(worker: Worker) -> None:
    """The agent is given the whole conversation, its own input last."""

    async def agent(turn: Turn) -> Answer:
        yield " ".join(message["content"] for message in turn.messages)

    runner = await worker.runner(agent)
    await worker.store.submit(worker.new_turn(input=[{"role": "user", "content": "more"}]))
    assert await runner.run() == ("completed", ("turns",))
    assert await (await worker.next(agent)).run() == ("completed", ())
    assert (await contents(worker.store))[-1] == "hello hello more"


async def test_an_agent_that_says_nothing_completes(worker: Worker) -> None:
    """An empty answer is an answer, and no message: endpoints refuse empty ones."""

    async def agent(turn: Turn) -> Answer:
        if turn.cancelled:
            yield "x"

    assert await worker.run(agent) == "completed"
    assert await contents(worker.store) == ["hello"]


async def test_an_error_of_the_agent_fails_the_turn(worker: Worker, store: Store) -> None:
    """The client is told the error's type and where its text is, the session stays as it was."""

    async def agent(_: Turn) -> Answer:
        yield "half"
        msg = "no such file"
        raise FileNotFoundError(msg)

    assert await worker.run(agent) == "failed"
    turn = await record(store, "s.1")
    where = "The worker's log has its text under turn s.1, attempt 1."
    assert turn.error == {"code": "agent_error", "message": f"The agent raised FileNotFoundError. {where}"}
    assert (await events(store, "s.1"))[-1]["error"] == turn.error
    assert (turn.output, await contents(store), await worker.texts()) == ("half", [], ["half"])


async def test_a_wrong_yield_fails_the_turn(worker: Worker, store: Store) -> None:
    """The author of an agent is told what it may yield."""

    async def agent(_: Turn) -> Any:
        yield b"bytes"

    assert await worker.run(agent) == "failed"
    turn = await record(store, "s.1")
    assert turn.error is not None
    assert "an agent yields str or an Event, not bytes" in turn.error["message"]


async def test_an_agent_that_is_no_generator_fails_the_turn(worker: Worker, store: Store) -> None:
    """A coroutine function is a usual mistake."""

    def agent(_: Turn) -> Any:
        return ["a list"]

    assert await worker.run(agent) == "failed"
    assert (await record(store, "s.1")).error is not None


@dataclass
class Provider:
    """An agent whose provider fails so many times, after some text, with a usage each time."""

    failures: list[Exception]
    before: str = "half"
    calls: int = 0
    closed: list[int] = field(default_factory=list)

    async def __call__(self, _: Turn) -> Answer:
        """Answer."""
        self.calls += 1
        try:
            yield Usage(1, 1)
            yield self.before
            if self.failures:
                raise self.failures.pop(0)
            yield "whole"
        finally:
            self.closed.append(self.calls)


async def test_a_passing_error_of_the_provider_is_tried_again(worker: Worker, store: Store) -> None:
    """The client is told that the answer starts over; only the last try counts."""
    provider = Provider([TransientProviderError("429"), TransientProviderError("503", retry_after=0)])
    assert await worker.run(provider) == "completed"
    assert (provider.calls, provider.closed) == (3, [1, 2, 3])
    told = [event for event in await events(store, "s.1") if event["type"] == "turn.restarted"]
    assert [(event["reason"], event["keep"], event["attempt"]) for event in told] == [("retry", 0, 1)] * 2
    turn = await record(store, "s.1")
    assert (turn.output, turn.usage, turn.attempt) == (
        "halfwhole",
        {"input_tokens": 1, "output_tokens": 1},
        1,
    )
    assert await contents(store) == ["hello", "halfwhole"]
    assert "".join(await worker.texts()) == "halfhalfhalfwhole"


async def test_an_agent_that_goes_on_keeps_its_text_in_a_retry(worker: Worker, store: Store) -> None:
    """It is given what it has said, and yields what follows; as long as it gets on it is tried again."""
    breaks = 5

    @continues()
    async def agent(turn: Turn) -> Answer:
        done = turn.partial.count(" ")
        assert turn.partial == "".join(f"w{k} " for k in range(done))
        yield f"w{done} "
        yield f"w{done + 1} "
        if done < 2 * breaks:
            raise TransientProviderError("broken off")

    assert await worker.run(agent, retries=1) == "completed"
    keeps = [event["keep"] for event in await events(store, "s.1") if event["type"] == "turn.restarted"]
    texts = [len("".join(f"w{k} " for k in range(2 * n))) for n in range(1, breaks + 1)]
    assert keeps == texts
    assert (await record(store, "s.1")).output == "".join(f"w{k} " for k in range(2 * breaks + 2))
    assert "".join(await worker.texts()) == (await record(store, "s.1")).output


async def test_an_agent_that_goes_on_takes_over_what_stands(worker: Worker, store: Store) -> None:
    """The session ends with one clean message of both attempts' text."""

    @continues()
    async def agent(turn: Turn) -> Answer:
        yield f"{turn.partial and 'and '}attempt {turn.attempt} "
        if turn.attempt == 1:
            await asyncio.Event().wait()

    runner = await worker.runner(agent)
    task = asyncio.create_task(runner.run())
    await worker.streamed("attempt 1 ")
    runner.stop(Stop.DRAINED)
    await task
    assert (await (await worker.next(agent)).run())[0] == "completed"
    assert await contents(store) == ["hello", "attempt 1 and attempt 2 "]
    assert (await events(store, "s.1"))[-1]["output"] == "attempt 1 and attempt 2 "


async def test_an_agent_that_cannot_go_on_after_all_says_so(worker: Worker, store: Store) -> None:
    """The client is told that nothing stands; an agent that has said nothing has nothing to take back."""

    @continues()
    async def agent(turn: Turn) -> Answer:
        yield StartOver()
        yield f"attempt {turn.attempt}"
        if turn.attempt == 1:
            await asyncio.Event().wait()

    runner = await worker.runner(agent)
    task = asyncio.create_task(runner.run())
    await worker.streamed("attempt 1")
    runner.stop(Stop.DRAINED)
    await task
    assert (await (await worker.next(agent)).run())[0] == "completed"
    told = [event for event in await events(store, "s.1") if event["type"] == "turn.restarted"]
    assert [(event["reason"], event["keep"]) for event in told] == [("drained", 9), ("retry", 0)]
    assert await contents(store) == ["hello", "attempt 2"]


async def test_a_retry_after_a_tool_s_call_is_told(worker: Worker, store: Store) -> None:
    """The client sees the call again, so it has to know why."""
    calls: list[int] = []

    async def agent(_: Turn) -> Answer:
        calls.append(1)
        yield ToolCall("c", "add", [1, 2])
        if len(calls) == 1:
            raise TransientProviderError("429")
        yield "3"

    assert await worker.run(agent) == "completed"
    call = "turn.tool_call"
    assert (await kinds(store, "s.1"))[2:5] == [call, "turn.restarted", call]


async def test_a_provider_that_asks_for_longer_than_there_is_fails_the_turn(
    worker: Worker, store: Store
) -> None:
    """Waiting past the deadline helps nobody."""
    provider = Provider([TransientProviderError("busy for a day", retry_after=86400)])
    assert await worker.run(provider) == "failed"
    error = (await record(store, "s.1")).error
    assert error is not None
    assert error["code"] == "provider_error"
    assert "asks to wait 86400 s, longer than the turn's deadline allows." in error["message"]
    assert provider.calls == 1


async def test_a_retry_before_any_text_is_not_told(worker: Worker, store: Store) -> None:
    """A client that has read nothing has nothing to forget."""
    assert await worker.run(Provider([TransientProviderError("429")], before="")) == "completed"
    assert "turn.restarted" not in await kinds(store, "s.1")


async def test_an_error_that_does_not_pass_in_time_fails_the_turn(worker: Worker, store: Store) -> None:
    """After the retries the turn fails with the last error."""
    provider = Provider([TransientProviderError("x", public=f"busy {n}") for n in range(5)])
    assert await worker.run(provider, retries=2) == "failed"
    assert provider.calls == 3
    error = (await record(store, "s.1")).error
    assert error is not None
    assert (error["code"], error["message"][:7]) == ("provider_error", "busy 2 ")


async def test_an_error_that_will_not_pass_fails_at_once(worker: Worker, store: Store) -> None:
    """A wrong key is not tried again."""
    said = "401 " + "x" * 1000
    provider = Provider([ProviderError(said, said)])
    assert await worker.run(provider) == "failed"
    assert provider.calls == 1
    turn = await record(store, "s.1")
    assert turn.error is not None
    assert (turn.error["code"], turn.error["message"][:5], len(turn.error["message"])) == (
        "provider_error",
        "401 x",
        500,
    )
