"""Flower beside a live pool, read over HTTP behind its password."""

import itertools
import socket
from typing import Any

import httpx
import pytest

from tests.acceptance.processes import Pool, Process
from tests.acceptance.sse import post_turn, run_turn
from tests.conftest import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

PASSWORD = "correct horse"


def turn(tokens: int) -> dict[str, object]:
    """A turn of so many tokens, 20 ms each."""
    return {"input": "hello", "agent": "simulated", "params": {"tokens": tokens}}


async def test_flower_shows_workers_tasks_and_slots(pool: Pool) -> None:
    """What runs, what is done and with what result, and how many slots are taken."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pool.start(Process, "turnpool-flower", FLOWER_PORT=str(port), FLOWER_PASSWORD=PASSWORD)
    base = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=base, auth=("turnpool", PASSWORD), trust_env=False) as flower:

        async def get(path: str) -> Any:
            answer = await flower.get(path)
            return answer.json() if answer.status_code == 200 else {}

        async def healthy() -> bool:
            try:
                return (await flower.get("/healthcheck")).status_code == 200
            except httpx.TransportError:
                return False

        await wait_until(healthy, 20)
        api = await pool.api()
        worker = await pool.worker(CONCURRENCY="7")

        async def online() -> bool:
            return any(name.endswith(f"-{worker.pid}") for name in await get("/api/workers?refresh=1"))

        await wait_until(online, 20)
        # A new worker tells nothing of its tasks until Flower asks it to, every five seconds.
        names = itertools.count()

        async def tasks_are_told() -> bool:
            await run_turn(api.port, f"early{next(names)}", turn(1))
            return bool(await get("/api/tasks"))

        await wait_until(tasks_are_told, 20)
        await run_turn(api.port, "done", turn(1))
        running = [await post_turn(api.port, f"runs{i}", turn(2000)) for i in range(3)]

        async def tasks_are_shown() -> bool:
            tasks = (await get("/api/tasks")).values()
            states = [task["state"] for task in tasks]
            results = [task["result"] for task in tasks if task["state"] == "SUCCESS"]
            return states.count("STARTED") == 3 and any("done.1 completed" in result for result in results)

        async def pool_is_shown() -> bool:
            workers = await get("/api/workers?refresh=1")
            (info,) = (value for name, value in workers.items() if name.endswith(f"-{worker.pid}"))
            shown = info.get("stats", {}).get("pool", {})
            return (shown.get("slots"), shown.get("running"), shown.get("draining")) == (7, 3, False)

        await wait_until(tasks_are_shown, 15)
        await wait_until(pool_is_shown, 15)
        page = (await flower.get(f"/worker/turnpool@{socket.gethostname()}-{worker.pid}")).text
        assert "slots" in page.lower()
        for answer in running:
            answer.writer.close()
        async with httpx.AsyncClient(base_url=base, trust_env=False) as stranger:
            assert (await stranger.get("/api/workers")).status_code == 401
