"""An answer goes on from its last token, whatever dies. P1, P2, P4 and P5 of the design."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.acceptance.processes import Pool, Process
from tests.acceptance.sse import Answer, Frame, check_dense, post_turn, request, run_turn, text_of, words
from tests.chaos.valkey import Valkey
from tests.conftest import wait_until
from tests.failover.load import Load, check_streams
from turnpool import keys
from turnpool.local.model import MODEL_NAME, missing_part

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

TURNS = 100


async def read(answer: Answer) -> list[Frame]:
    """A stream to its end."""
    return [frame async for frame in answer.frames()]


def check_continued(frames: list[Frame], text: str) -> int:
    """Nothing of the text was taken back, repeated or left out; gives how often it was continued."""
    check_dense(frames)
    assert frames[-1].event == "turn.completed", frames[-1].data
    kept = [(n, frame.data["keep"]) for n, frame in enumerate(frames) if frame.event == "turn.restarted"]
    for n, keep in kept:
        assert keep == len(text_of(frames[:n]))
    deltas = [frame.data["text"] for frame in frames if frame.event == "turn.output_text.delta"]
    assert "".join(deltas) == frames[-1].data["output"] == text
    return len(kept)


async def start_turns(pool: Pool, port: int, count: int, tokens: int) -> list["asyncio.Task[list[Frame]]"]:
    """Post turns and read their streams; all run, and have said something, when this returns."""
    body = {"input": "hello", "agent": "simulated", "params": {"tokens": tokens}}
    answers = await asyncio.gather(*(post_turn(port, f"long{i}", body) for i in range(count)))

    async def all_stream() -> bool:
        turns = [await pool.store.turn(f"long{i}.1", "default") for i in range(count)]
        return all(turn.seq > 5 for turn in turns)

    tasks = [asyncio.create_task(read(answer)) for answer in answers]
    await wait_until(all_stream, 20)
    return tasks


async def test_answers_of_a_killed_worker_go_on_from_the_last_token(pool: Pool) -> None:
    """A hundred turns; each session ends with one clean message."""
    api = await pool.api()
    workers = [await pool.worker(), await pool.worker()]
    tasks = await start_turns(pool, api.port, TURNS, 300)
    workers[0].signal(signal.SIGKILL)
    continued = sum([check_continued(frames, words(300)) for frames in await asyncio.gather(*tasks)])
    assert 0 < continued < TURNS
    for i in range(TURNS):
        messages = await pool.store.messages(f"long{i}", "default")
        assert [message["content"] for message in messages] == ["hello", words(300)]


async def test_a_worker_that_stood_still_writes_nothing(pool: Pool) -> None:
    """Its turns are completed elsewhere, once; when it goes on it finds them lost, and says so."""
    api = await pool.api()
    zombie = await pool.worker()
    tasks = await start_turns(pool, api.port, 20, 300)
    await pool.worker()
    loop = asyncio.get_running_loop()
    stopped = loop.time()
    zombie.signal(signal.SIGSTOP)
    for frames in await asyncio.gather(*tasks):
        assert check_continued(frames, words(300)) == 1
    logs = [await pool.store.frames(f"long{i}.1", "default", 0) for i in range(20)]
    await asyncio.sleep(max(stopped + 15 - loop.time(), 0))
    zombie.signal(signal.SIGCONT)

    async def all_lost() -> bool:
        lost = [event["turn"] for event in zombie.events() if event["event"] == "lease_lost"]
        return sorted(map(str, lost)) == sorted(f"long{i}.1" for i in range(20))

    await wait_until(all_lost, 20)
    zombie.signal(signal.SIGTERM)
    assert await zombie.exit() == 0
    assert [await pool.store.frames(f"long{i}.1", "default", 0) for i in range(20)] == logs
    for i in range(20):
        assert len(await pool.store.messages(f"long{i}", "default")) == 2


@pytest.mark.parametrize("seconds", [3, 20])
async def test_redis_is_killed_under_load(tmp_path: Path, seconds: float) -> None:
    """With an AOF that is always written: all that was accepted completes, and no turn is restarted."""
    valkey = Valkey(tmp_path)
    await valkey.start()
    pool = Pool(tmp_path, valkey.url, DURABILITY="aof")
    try:
        ports = [(await pool.api()).port for _ in range(2)]
        for _ in range(2):
            await pool.worker()
        tasks = await start_turns(pool, ports[0], TURNS, 400)
        load = Load(ports)
        async with load.running():
            await load.so_many_more(20)
            valkey.kill()
            await asyncio.sleep(seconds)
            await valkey.start()
            await load.so_many_more(40)
        for frames in await asyncio.gather(*tasks):
            assert check_continued(frames, words(400)) == 0
        assert check_streams(await load.streams()) == 0
        state = await pool.store.queue_state("turns")
        assert (state.queued, state.running) == (0, 0)
    finally:
        await pool.close()
        valkey.kill()


@contextmanager
def counter() -> Iterator[tuple[str, Counter[str]]]:
    """An HTTP server that counts what it is posted to; its URL, and the counts by path."""
    seen: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen[self.path] += 1
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Be silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_step_s_side_effect_comes_once(pool: Pool) -> None:
    """Workers are killed between the steps of their turns and after them."""
    agents = "counting=tests.acceptance.agents:counting"
    api = await pool.api(AGENTS=agents)
    first = await pool.worker(AGENTS=agents)
    with counter() as (url, seen):
        body = {"input": "hello", "params": {"url": url}}
        answers = await asyncio.gather(*(post_turn(api.port, f"s{i}", body) for i in range(TURNS)))
        tasks = [asyncio.create_task(read(answer)) for answer in answers]
        second = await kill_after_steps(pool, first, 1, agents)
        await kill_after_steps(pool, second, 2, agents)
        for i, frames in enumerate(await asyncio.gather(*tasks)):
            assert check_continued(frames, "bought paid done") == 2, i
    assert seen == {f"/s{i}.1/{name}": 1 for i in range(TURNS) for name in ("buy", "pay")}


async def kill_after_steps(pool: Pool, worker: Process, count: int, agents: str) -> Process:
    """Kill the worker once every turn has recorded so many steps and said so; gives the one that follows."""

    async def recorded() -> bool:
        async with pool.store.redis.pipeline(transaction=False) as pipeline:
            for i in range(TURNS):
                pipeline.hlen(keys.steps(pool.store.prefix, f"default:s{i}.1"))
                pipeline.hget(keys.turn(pool.store.prefix, f"default:s{i}.1"), "seq")
            found = await pipeline.execute()
        # Queued, in progress, and for each step the word that follows it; two more for each restart.
        said = 2 + count + 2 * (count - 1)
        return bool(found == [count, str(said).encode()] * TURNS)

    await wait_until(recorded, 40)
    worker.signal(signal.SIGKILL)
    return await pool.worker(AGENTS=agents)


@pytest.fixture
async def chatting(tmp_path: Path, redis_url: str) -> AsyncIterator[Pool]:
    """A pool whose agent asks the local model."""
    if reason := missing_part():
        assert not os.environ.get("CI"), f"CI needs the local model: {reason}"
        pytest.skip(reason)
    log = tmp_path / "model.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "turnpool.local.model", "--port", "0"), stdout=output, stderr=output
        )
    try:

        async def listens() -> bool:
            return f"{MODEL_NAME} on http" in log.read_text()

        await wait_until(listens, 30)
        address = log.read_text().split(f"{MODEL_NAME} on ")[1].split()[0]
        chat = "chat=turnpool_workers.agents.chat:agent"
        pool = Pool(tmp_path, redis_url, LLM_BASE_URL=f"{address}/v1", LLM_MODEL=MODEL_NAME, AGENTS=chat)
        yield pool
        await pool.close()
    finally:
        process.kill()
        await process.wait()


async def test_a_real_model_goes_on_in_mid_sentence(chatting: Pool) -> None:
    """What it says then is what it would have said: the same text as without the kill."""
    api = await chatting.api()
    workers = [await chatting.worker(), await chatting.worker()]
    body = {
        "input": "Write a long story about the sea.",
        "params": {"temperature": 0, "seed": 1, "max_tokens": 200},
    }
    whole = text_of(await run_turn(api.port, "whole", body))
    answer = await post_turn(api.port, "cut", body)
    frames = []
    async for frame in answer.frames():
        frames.append(frame)
        if len(text_of(frames)) > len(whole) / 3 and workers:
            ran_on = next(f.data["worker"] for f in frames if f.event == "turn.in_progress")
            (runs,) = (worker for worker in workers if ran_on.endswith(f"-{worker.pid}"))
            runs.signal(signal.SIGKILL)
            workers.clear()
    assert check_continued(frames, frames[-1].data["output"]) == 1
    # Its limit of tokens counts anew, so it may say more.
    assert text_of(frames).startswith(whole)
    session = await (await request(api.port, "GET", "/v1/sessions/cut")).body()
    assert [message["role"] for message in session["messages"]] == ["user", "assistant"]
    assert session["messages"][1]["content"] == text_of(frames)
