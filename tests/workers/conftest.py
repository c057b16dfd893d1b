"""What the tests of the workers share: a worker that runs one attempt at a time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.serving import serving
from tests.turnpool.scripts.kit import MakeTurn, events
from tests.workers.provider import Provider
from turnpool.agent import Agent, can_continue
from turnpool.store.store import Store
from turnpool_workers.agents import chat
from turnpool_workers.attempt import retries
from turnpool_workers.attempt import run as running
from turnpool_workers.attempt.run import Runner
from turnpool_workers.attempt.writer import Writer


@pytest.fixture
async def writer(store: Store) -> AsyncIterator[Writer]:
    """A writer at work."""
    writer = Writer(store, 0.005)
    task = asyncio.create_task(writer.run())
    yield writer
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@dataclass
class Worker:
    """Runs turns with an agent."""

    store: Store
    writer: Writer
    new_turn: MakeTurn

    async def runner(self, agent: Agent, retries: int = 2, **changes: Any) -> Runner:
        """A runner for a new turn."""
        await self.store.submit(self.new_turn(**changes))
        return await self.next(agent, retries)

    async def next(self, agent: Agent, retries: int = 2) -> Runner:
        """A runner for the turn that is next in line."""
        claim, _ = await self.store.claim("turns", "w1", ["simulated"] if can_continue(agent) else [])
        assert claim is not None
        return Runner(claim, agent, self.store, self.writer, retries)

    async def run(self, agent: Agent, retries: int = 2, **changes: Any) -> str:
        """Run a new turn to its end."""
        result, _ = await (await self.runner(agent, retries, **changes)).run()
        return result

    async def streamed(self, text: str, turn_id: str = "s.1") -> None:
        """Wait until the client has read so much."""

        async def there() -> bool:
            return "".join(await self.texts(turn_id)) == text

        await wait_until(there)

    async def texts(self, turn_id: str = "s.1") -> list[str]:
        """The text of each event that has one."""
        return [event["text"] for event in await events(self.store, turn_id) if "text" in event]


@pytest.fixture
def worker(store: Store, writer: Writer, new_turn: MakeTurn, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker on the test's server, with short pauses."""
    monkeypatch.setattr(retries, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(retries, "RETRY_LONGEST", 0.002)
    monkeypatch.setattr(running, "AWAY_PAUSE", 0.001)
    monkeypatch.setattr(running, "CLEAN_UP_SECONDS", 0.2)
    return Worker(store, writer, new_turn)


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Provider]:
    """A provider, to which the agent's settings point."""
    provider = Provider()
    async with serving(provider.serve) as port:
        monkeypatch.setenv("TURNPOOL_LLM_BASE_URL", f"http://127.0.0.1:{port}/v1")
        monkeypatch.setenv("TURNPOOL_LLM_MODEL", "small")
        monkeypatch.setenv("TURNPOOL_LLM_MODELS", "other, big-*")
        monkeypatch.setenv("TURNPOOL_LLM_API_KEY", "hush")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        chat._endpoint.cache_clear()
        yield provider
        await chat._endpoint().provider.close()
        chat._endpoint.cache_clear()
