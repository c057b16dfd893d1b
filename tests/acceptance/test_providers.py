"""A pool whose model's provider limits, or is away."""

import asyncio
import os
import socket
import time
from dataclasses import dataclass, field

import pytest

from tests.acceptance.processes import Pool
from tests.acceptance.sse import run_turn
from tests.conftest import wait_until
from tests.serving import serving

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance, pytest.mark.timeout(180)]

CHAT = "chat=turnpool_workers.agents.chat:agent"
TURNS = 200
AWAY_TURNS, AWAY_SECONDS = 20, float(os.environ.get("AWAY_SECONDS", "10"))
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
REFUSAL = (
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 2\r\ncontent-type: application/json\r\n"
    b"content-length: 2\r\nconnection: close\r\n\r\n{}"
)


@dataclass
class Limited:
    """Answers a number of requests in each second, and refuses the others with a hint."""

    per_second: int = 20
    requests: int = 0
    answered: list[float] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        self.requests += 1
        now = time.monotonic()
        admitted = sum(1 for at in self.answered if now - at < 1) < self.per_second
        if admitted:
            self.answered.append(now)
        writer.write(ANSWER if admitted else REFUSAL)
        await writer.drain()
        writer.close()


async def ends(port: int, count: int) -> list[str]:
    """Post turns, each to a session of its own, at once; how each of them ended."""
    body = {"input": "hello", "deadline_seconds": 600}
    streams = await asyncio.gather(*(run_turn(port, f"s{i}", body) for i in range(count)))
    return [frames[-1].event for frames in streams]


async def test_many_turns_share_an_endpoint_that_limits_them(pool: Pool) -> None:
    """200 turns at once, 20 requests a second, `Retry-After: 2`: all complete, in no common wave."""
    provider = Limited()
    async with serving(provider.serve) as port:
        api = await pool.api(AGENTS=CHAT)
        await pool.worker(AGENTS=CHAT, LLM_BASE_URL=f"http://127.0.0.1:{port}/v1")
        begun = time.monotonic()
        assert await ends(api.port, TURNS) == ["turn.completed"] * TURNS
    print(f"{TURNS} turns: {time.monotonic() - begun:.1f} s, {provider.requests} requests")  # noqa: T201 - a figure
    # Spread out, the turns ask a few times each.
    assert provider.requests < 8 * TURNS


async def test_an_endpoint_that_is_away_fails_no_turn(pool: Pool) -> None:
    """Refused connections use up no tries, of which the settings here allow none at all."""
    provider = Limited(per_second=1000)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    api = await pool.api(AGENTS=CHAT)
    worker = await pool.worker(AGENTS=CHAT, LLM_BASE_URL=f"http://127.0.0.1:{port}/v1", PROVIDER_RETRIES="0")
    turns = asyncio.create_task(ends(api.port, AWAY_TURNS))
    begun = time.monotonic()

    async def waited() -> bool:
        return time.monotonic() > begun + AWAY_SECONDS

    await wait_until(waited, AWAY_SECONDS + 10)
    retries = [event for event in worker.events() if event["event"] == "provider_retry"]
    assert len(retries) > 2 * AWAY_TURNS
    assert "Connect" in str(retries[0]["error"])
    server = await asyncio.start_server(provider.serve, "127.0.0.1", port)
    async with server:
        assert await turns == ["turn.completed"] * AWAY_TURNS
