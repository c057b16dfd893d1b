"""Messages of strangers in the broker: a worker lives on, and serves the next turn."""

import json
import signal

import pytest
from redis.asyncio import Redis

from tests.acceptance.processes import Pool
from tests.acceptance.refusals import sockets_of
from tests.acceptance.sse import run_turn, text_of, words
from tests.conftest import wait_until
from tests.workers.test_malformed import BROADCASTS, GOOD_BROADCAST, MALFORMED, body
from turnpool.store.wakeups import message

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

TURN = {"input": "hello", "agent": "simulated", "params": {"tokens": 5}}

COMMANDS: dict[str, object] = {
    "a list": [],
    "a text": "ping",
    "null": None,
    "nothing": {},
    "no such method": {"method": "nonsense"},
    "method null": {"method": None},
    "method a list": {"method": []},
    "destination a number": {"method": "ping", "destination": 5},
    "arguments a list": {"method": "ping", "arguments": [1]},
    "unknown arguments": {"method": "ping", "arguments": {"nonsense": 1}},
    "unknown members": {"method": "ping", "nonsense": 1},
    "reply nowhere": {"method": "ping", "reply_to": "nonsense"},
    "reply to no key": {"method": "ping", "reply_to": {}},
    "broken pattern": {"method": "ping", "pattern": "[", "matcher": "pcre"},
    "unknown matcher": {"method": "ping", "pattern": "*", "matcher": "nonsense"},
}


async def test_malformed_messages_end_no_worker(pool: Pool) -> None:
    """Each shape in the list of wake-ups is logged once; the turn behind them all is served."""
    api, worker = await pool.api(), await pool.worker()
    async with Redis.from_url(pool.redis_url) as redis:
        await redis.lpush("turnpool:turns", *MALFORMED.values())
        # The same wake-up twice, and one more than there are turns.
        await redis.lpush("turnpool:turns", *[message("turnpool:turns")] * 2)
        assert text_of(await run_turn(api.port, "s", TURN)) == words(5)

        async def emptied() -> bool:
            return not await redis.llen("turnpool:turns")

        await wait_until(emptied)
    logged = [event for event in worker.events() if event["event"] == "malformed_wakeup"]
    assert len(logged) == len(MALFORMED)
    worker.signal(signal.SIGTERM)
    assert await worker.exit() == 0


async def test_malformed_broadcasts_end_no_worker(pool: Pool) -> None:
    """Nor do twenty of each leave connections behind."""
    api, worker = await pool.api(), await pool.worker()
    assert text_of(await run_turn(api.port, "s", TURN)) == words(5)
    broadcasts = list(BROADCASTS.values())
    broadcasts += [
        json.dumps(GOOD_BROADCAST | {"body": body(command)}).encode() for command in COMMANDS.values()
    ]
    async with Redis.from_url(pool.redis_url) as redis:
        for _ in range(20):
            for broadcast in broadcasts:
                await redis.publish("/0.turnpool.control.pidbox", broadcast)
                await redis.publish("/0.turnpool.events/worker.online", broadcast)
        assert text_of(await run_turn(api.port, "s", TURN)) == words(5)
        assert (await redis.pubsub_numpat()) == 1
    assert worker.status is None
    assert sockets_of(worker) < 20
