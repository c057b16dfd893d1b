"""What a client is told of turns that may not be safe."""

import signal
from pathlib import Path

import pytest

from tests.acceptance.processes import Pool, Process
from tests.acceptance.sse import check_dense, request, run_turn, text_of, words
from tests.turnpool.test_durability import servers

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

BODY = {"input": "hello", "agent": "simulated", "params": {"tokens": 5}}
PATH = "/v1/sessions/s/turns"


async def test_a_turn_is_accepted_once_a_replica_has_it(tmp_path: Path) -> None:
    """Until then the answer is 503; the same key gives the same turn, which runs once."""
    async with servers(tmp_path, replicas=1) as (server, replica):
        pool = Pool(tmp_path, f"redis://127.0.0.1:{server.port}/0", DURABILITY="replica")
        try:
            api = await pool.api()
            await pool.worker()
            frames = await run_turn(api.port, "before", BODY)
            assert text_of(frames) == words(5)
            replica.signal(signal.SIGSTOP)
            key = {"Idempotency-Key": "k"}
            refused = await request(api.port, "POST", PATH, BODY, key)
            assert (refused.status, (await refused.body())["code"]) == (503, "not_durable")
            assert 1 <= int(refused.headers["retry-after"]) <= 4
            replica.signal(signal.SIGCONT)
            accepted = await request(api.port, "POST", PATH, BODY, key)
            assert (accepted.status, accepted.headers["idempotent-replayed"]) == (202, "true")
            turn = await accepted.body()
            events = await request(api.port, "GET", f"/v1/turns/{turn['id']}/events")
            frames = [frame async for frame in events.frames()]
            check_dense(frames)
            assert (turn["id"], text_of(frames)) == ("s.1", words(5))
        finally:
            await pool.close()


@pytest.mark.parametrize("script", ["turnpool-api", "turnpool-worker"])
async def test_a_server_that_cannot_keep_the_promise_is_told_at_start(script: str, pool: Pool) -> None:
    """One line, and exit 2."""
    process = pool.start(Process, script, DURABILITY="replica")
    assert await process.exit() == 2
    lines = [line for line in process.log.read_text().splitlines() if not line.startswith("{")]
    (line,) = lines
    assert line.startswith("turnpool: TURNPOOL_DURABILITY=replica: no replica is connected")
