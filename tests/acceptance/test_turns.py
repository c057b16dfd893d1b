"""Turns from end to end, with real processes."""

import asyncio
import time

import pytest

from tests.acceptance.processes import Pool
from tests.acceptance.sse import check_dense, post_turn, request, run_turn, text_of, words
from tests.conftest import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


def simulated(tokens: int = 100, **more: object) -> dict[str, object]:
    """A turn for the simulated agent, 20 ms a token."""
    return {"input": "hello", "agent": "simulated", "params": {"tokens": tokens}, **more}


async def test_two_hundred_turns_at_once_on_one_worker(pool: Pool) -> None:
    """All complete, and every stream has ids 1 to n without a hole or a double."""
    api = await pool.api()
    await pool.worker()
    streams = await asyncio.gather(*(run_turn(api.port, f"s{i}", simulated()) for i in range(200)))
    for frames in streams:
        check_dense(frames)
        assert frames[-1].event == "turn.completed"
        assert text_of(frames) == frames[-1].data["output"] == words(100)


async def test_turns_of_a_session_run_in_order(pool: Pool) -> None:
    """Two turns posted at once run one after the other, and the second sees the first."""
    api = await pool.api()
    await pool.worker()
    first, second = await asyncio.gather(
        run_turn(api.port, "s", simulated(10)), run_turn(api.port, "s", simulated(10))
    )
    if first[0].data["turn_id"] != "s.1":
        first, second = second, first
    started = next(f for f in second if f.event == "turn.in_progress").data["created_at"]
    assert first[-1].data["created_at"] <= started
    # The simulated agent counts the words it is given: 1 of its input, or with history 1 + 10 + 1.
    assert first[-1].data["usage"]["input_tokens"] == 1
    assert second[-1].data["usage"]["input_tokens"] == 12


async def test_reject_gives_409(pool: Pool) -> None:
    """A turn with on_busy reject is refused while another runs."""
    api = await pool.api()
    await pool.worker()
    running = await post_turn(api.port, "s", simulated(50))
    refused = await post_turn(api.port, "s", simulated(on_busy="reject"))
    assert refused.status == 409
    assert (await refused.body())["turn_id"] == "s.1"
    check_dense([frame async for frame in running.frames()])


async def test_interrupt_cancels_the_running_turn(pool: Pool) -> None:
    """The first is cancelled with what it has streamed, then the second runs."""
    api = await pool.api()
    await pool.worker()
    first = await post_turn(api.port, "s", simulated(5000))
    frames = []
    async for frame in first.frames():
        frames.append(frame)
        if frame.event == "turn.output_text.delta":
            break
    second = await run_turn(api.port, "s", simulated(5, on_busy="interrupt"))
    assert text_of(second) == words(5)
    rest = await request(api.port, "GET", f"/v1/turns/s.1/events?after={frames[-1].id}")
    frames += [frame async for frame in rest.frames()]
    check_dense(frames)
    assert frames[-1].event == "turn.cancelled"
    session = await (await request(api.port, "GET", "/v1/sessions/s")).body()
    roles = [(m["role"], m.get("status")) for m in session["messages"]]
    assert roles == [("user", None), ("assistant", "incomplete"), ("user", None), ("assistant", None)]
    assert session["messages"][1]["content"] == frames[-1].data["output"]


async def test_the_same_idempotency_key_twice_gives_one_turn(pool: Pool) -> None:
    """The second post gets the first's stream, from its start."""
    api = await pool.api()
    await pool.worker()
    answers = [await post_turn(api.port, "s", simulated(10), **{"Idempotency-Key": "k"}) for _ in range(2)]
    streams = [[frame async for frame in answer.frames()] for answer in answers]
    assert [f.data for f in streams[0]] == [f.data for f in streams[1]]
    assert answers[1].headers["idempotent-replayed"] == "true"
    turns = await (await request(api.port, "GET", "/v1/sessions/s/turns")).body()
    assert [turn["id"] for turn in turns["turns"]] == ["s.1"]


async def test_a_worker_takes_no_more_than_it_has_slots_for(pool: Pool) -> None:
    """Of 30 turns exactly 10 run at concurrency 10, and the Celery list holds exactly 20."""
    api = await pool.api()
    await pool.worker(CONCURRENCY="10")
    answers = [await post_turn(api.port, f"s{i}", simulated(300)) for i in range(30)]

    async def settled() -> bool:
        state = await pool.store.queue_state("turns")
        return (state.running, state.queued) == (10, 20)

    await wait_until(settled)
    # Twenty more looks: a worker that took one too many would show it.
    for _ in range(20):
        assert await pool.store.redis.llen("turnpool:turns") == 20
        assert (await pool.store.queue_state("turns")).running == 10
        await asyncio.sleep(0.05)
    for answer in answers:
        answer.writer.close()


async def test_cancel_stops_a_running_turn_within_a_second_from_any_api(pool: Pool) -> None:
    """The stream on one API process ends soon after the cancel on another."""
    api, other = await pool.api(), await pool.api()
    await pool.worker()
    answer = await post_turn(api.port, "s", simulated(5000))
    cancelled_at = 0.0
    frames = []
    async for frame in answer.frames():
        frames.append(frame)
        if frame.event == "turn.output_text.delta" and not cancelled_at:
            cancelled_at = time.monotonic()
            cancel = await request(other.port, "POST", "/v1/turns/s.1/cancel")
            assert (cancel.status, (await cancel.body())["id"]) == (202, "s.1")
    check_dense(frames)
    assert frames[-1].event == "turn.cancelled"
    assert frames[-1].data["output"] == text_of(frames)
    assert frames[-1].at - cancelled_at < 1


async def test_chat_waits_for_the_answer(pool: Pool) -> None:
    """POST /chat gives the text when the turn has ended."""
    api = await pool.api(AGENTS="simulated=turnpool_workers.agents.simulated:agent")
    await pool.worker()
    answer = await request(api.port, "POST", "/chat/s", {"message": "hello"})
    assert (answer.status, await answer.body()) == (200, {"response": words(100)})


async def test_a_worker_needs_no_code_of_other_queues_agents(pool: Pool) -> None:
    """Where each queue's workers have an image of their own, the list of all agents does for every one."""
    agents = "simulated=turnpool_workers.agents.simulated:agent,paint=not_installed_here:paint@gpu"
    api = await pool.api(AGENTS=agents)
    await pool.worker(AGENTS=agents, QUEUES="turns")
    assert (await run_turn(api.port, "s", {"input": "hi", "params": {"tokens": 1}}))[
        -1
    ].event == "turn.completed"
