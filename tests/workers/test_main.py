"""A real `turnpool-worker` process that is told to stop before it serves."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import Process, mute_server
from tests.conftest import wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance]

Start = Callable[..., Process]

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])

# A module whose import does not end.
ENDLESS = """
import pathlib, threading
pathlib.Path({path!r}).touch()
threading.Event().wait()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker with these variables; it ends with the test."""
    started: list[Process] = []

    def start(**env: str) -> Process:
        started.append(Process("turnpool-worker", tmp_path / "worker.log", env))
        return started[-1]

    yield start
    for process in started:
        process.stop()


@SIGNALS
@pytest.mark.parametrize("module", ["celery", "endless"])
async def test_while_it_imports(start: Start, tmp_path: Path, module: str, number: signal.Signals) -> None:
    """Celery, which takes longer than all the rest; or an agent, of which everything raised is caught."""
    reached = tmp_path / "reached"
    (tmp_path / f"{module}.py").write_text(ENDLESS.format(path=str(reached)))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = start(PYTHONPATH=path, TURNPOOL_AGENTS="endless=endless:agent")

    async def imports() -> bool:
        return reached.exists()

    await wait_until(imports, 40)
    process.signal(number)
    assert await process.exit() == 0


@SIGNALS
async def test_while_it_looks_at_redis(start: Start, number: signal.Signals) -> None:
    """A server that says nothing does not keep it."""
    async with mute_server() as (port, asked):
        process = start(TURNPOOL_REDIS_URL=f"redis://127.0.0.1:{port}/0", TURNPOOL_METRICS_PORT="0")
        await asyncio.wait_for(asked.wait(), 40)
        process.signal(number)
        assert await process.exit() == 0
