"""Processes with the rights that `turnpool acl` prints, and with less."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.acceptance.processes import Pool, Process
from tests.acceptance.sse import request, run_turn, text_of, words
from tests.conftest import wait_until
from tests.failover.servers import Server, free_ports
from turnpool.redis.access import acl
from turnpool.settings import Settings

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

TURN = {"input": "hello", "agent": "simulated", "params": {"tokens": 5}}
USER = "turnpool"


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Any]:
    """An administrator's client of a server whose other user has the printed rights."""
    (port,) = free_ports(1)
    server = Server(tmp_path, port)
    redis: Any
    async with Redis(host="127.0.0.1", port=port) as redis:
        await wait_until(server.answers)
        await redis.execute_command("ACL", "SETUSER", USER, *acl(Settings())[0].split()[2:])
        await redis.acl_log_reset()
        yield redis
    await server.close()


@pytest.fixture
async def limited(tmp_path: Path, admin: Any) -> AsyncIterator[Pool]:
    """A pool that has that user."""
    port = admin.connection_pool.connection_kwargs["port"]
    pool = Pool(tmp_path, f"redis://{USER}:PASSWORD@127.0.0.1:{port}/0")
    yield pool
    await pool.close()


async def test_nothing_is_refused_with_the_printed_rights(admin: Any, limited: Pool) -> None:
    """API, worker and Flower start, run turns, and end. TEST_ACL=1 has all acceptance tests so."""
    api, worker = await limited.api(), await limited.worker()
    flower = limited.start(Process, "turnpool-flower", FLOWER_PORT="0", FLOWER_PASSWORD="p")
    for n in range(3):
        assert text_of(await run_turn(api.port, f"s{n}", TURN)) == words(5)

    async def flower_listens() -> bool:
        return bool(await admin.pubsub_numpat() >= 2)

    await wait_until(flower_listens, 20)
    for process in (flower, worker, api):
        process.signal(signal.SIGTERM)
        assert await process.exit() == 0
    assert await admin.acl_log() == []


@pytest.mark.parametrize(
    ("script", "rule", "says"),
    [
        ("turnpool-api", "-evalsha", "EVALSHA"),
        ("turnpool-worker", "-blmpop", "BLMPOP 1 1 turnpool:turns RIGHT"),
        ("turnpool-flower", "-psubscribe", "PSUBSCRIBE /0.turnpool.control.pidbox"),
    ],
)
async def test_a_process_without_a_right_does_not_start(
    admin: Any, limited: Pool, script: str, rule: str, says: str
) -> None:
    """It says which one in one line, and exits with status 2."""
    await admin.execute_command("ACL", "SETUSER", USER, rule)
    process = limited.start(Process, script, FLOWER_PASSWORD="p", FLOWER_PORT="0")
    assert await process.exit() == 2
    (line,) = process.log.read_text().splitlines()
    assert line.startswith("turnpool: TURNPOOL_")
    assert says in line


@pytest.mark.parametrize("rule", ["-evalsha", "-lpush", "-blmpop", "resetchannels"])
async def test_rights_that_are_taken_away_show_in_readiness(admin: Any, limited: Pool, rule: str) -> None:
    """Until they are given back; then turns go on by themselves."""
    api, worker = await limited.api(), await limited.worker()

    async def readiness() -> tuple[int, str]:
        answer = await request(api.port, "GET", "/readyz")
        if answer.status == 200:
            answer.writer.close()
            return 200, ""
        return answer.status, (await answer.body())["code"]

    assert await readiness() == (200, "")
    await admin.execute_command("ACL", "SETUSER", USER, rule)
    assert await readiness() == (503, "redis_refuses")
    if rule == "-evalsha":
        refused = await request(api.port, "POST", "/v1/sessions/s/turns", TURN)
        assert (refused.status, (await refused.body())["code"]) == (503, "redis_away")
    await admin.execute_command("ACL", "SETUSER", USER, *acl(Settings())[0].split()[2:])
    assert await readiness() == (200, "")
    assert text_of(await run_turn(api.port, "s2", TURN)) == words(5)
    assert worker.status is None
