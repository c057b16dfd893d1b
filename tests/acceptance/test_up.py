"""`turnpool up`: one command, and all of it gone with one Ctrl-C."""

import asyncio
import base64
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.sse import check_dense, request, run_turn, text_of, words
from tests.conftest import wait_until
from turnpool.local.model import missing_part

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

TURNPOOL = Path(sys.executable).with_name("turnpool")
PORTS = ("port", "flower-port", "metrics-port", "valkey-port", "model-port")


@dataclass
class Up:
    """A running `turnpool up`."""

    process: "subprocess.Popen[bytes]"
    log: Path
    ports: dict[str, int]

    @property
    def password(self) -> str:
        """Flower's password, as it was printed."""
        found = re.search(r"password (\S+)", self.log.read_text())
        assert found
        return found[1]

    async def flower(self, path: str) -> Any:
        """What Flower's API says."""
        secret = base64.b64encode(f"turnpool:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {secret}"}
        answer = await request(self.ports["flower-port"], "GET", path, headers=headers)
        assert answer.status == 200
        return await answer.body()

    async def end(self) -> int:
        """Ctrl-C; its exit status. Says what it logged if it does not end."""
        self.process.send_signal(signal.SIGINT)
        try:
            return await asyncio.to_thread(self.process.wait, 30)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log.read_text()) from None


async def start(folder: Path, *options: str, turnpool: Path = TURNPOOL, **env: str) -> Up:
    """Start it with free ports, and wait until it says that it is up. `turnpool`: of another installation."""
    ports = {}
    for name in PORTS:
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports[name] = free.getsockname()[1]
    chosen = [word for name, port in ports.items() for word in (f"--{name}", str(port))]
    log = folder / "up.log"
    clean = {name: value for name, value in os.environ.items() if "TURNPOOL" not in name}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [turnpool, "up", *chosen, *options], cwd=folder, env=clean | env, stdout=output
        )
    up = Up(process, log, ports)

    async def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        return "turnpool is up" in log.read_text()

    await wait_until(is_up, 60)
    return up


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    """`turnpool up --simulated`."""
    up = await start(tmp_path, "--simulated")
    yield up
    up.process.kill()
    up.process.wait()


async def test_it_answers_shows_the_worker_in_flower_and_ends_with_one_ctrl_c(up: Up) -> None:
    """A turn streams, Flower has it as a task, and no port is left open."""
    # A new worker tells nothing of its tasks until Flower asks it to, every five seconds.
    names = itertools.count()

    async def tasks_are_told() -> bool:
        await run_turn(up.ports["port"], f"early{next(names)}", {"input": "hi", "params": {"tokens": 1}})
        return bool(await up.flower("/api/tasks"))

    await wait_until(tasks_are_told, 20)
    frames = await run_turn(up.ports["port"], "demo", {"input": "Why is the sea salty?"})
    check_dense(frames)
    assert text_of(frames) == words(100)

    async def flower_has_it() -> bool:
        tasks = (await up.flower("/api/tasks")).values()
        return ("SUCCESS", "demo.1 completed") in [(task["state"], task["result"]) for task in tasks]

    await wait_until(flower_has_it)
    (worker,) = (await up.flower("/api/workers?refresh=1")).values()
    assert worker["stats"]["pool"]["slots"] == 200
    refused = await request(up.ports["flower-port"], "GET", "/api/tasks")
    refused.writer.close()
    assert refused.status == 401
    assert await up.end() == 0
    for port in up.ports.values():
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_conversations_outlive_a_restart(tmp_path: Path) -> None:
    """What was said before the end is there after the next start."""
    for turn in (1, 2):
        up = await start(tmp_path, "--simulated")
        try:
            frames = await run_turn(up.ports["port"], "demo", {"input": "hello", "params": {"tokens": 3}})
            assert frames[-1].data["turn_id"] == f"demo.{turn}"
            # One word of input, and of the turn before one of input and three of the answer.
            assert frames[-1].data["usage"]["input_tokens"] == 1 + (turn - 1) * 4
            assert await up.end() == 0
        finally:
            up.process.kill()
            up.process.wait()


async def test_the_real_model_streams_and_is_given_the_history(tmp_path: Path) -> None:
    """It answers in several pieces, and the second prompt holds the first turn."""
    if reason := missing_part():
        assert not os.environ.get("CI"), f"CI needs the local model: {reason}"
        pytest.skip(reason)
    up = await start(tmp_path)
    try:
        first = await run_turn(up.ports["port"], "demo", {"input": "Why is the sea salty?"})
        second = await run_turn(up.ports["port"], "demo", {"input": "Say that again, shorter."})
        for frames in (first, second):
            check_dense(frames)
            assert frames[-1].event == "turn.completed"
            assert text_of(frames) == frames[-1].data["output"]
            assert len([frame for frame in frames if frame.event == "turn.output_text.delta"]) > 3
        said = first[-1].data["usage"]
        assert second[-1].data["usage"]["input_tokens"] > said["input_tokens"] + said["output_tokens"]
        assert await up.end() == 0
    finally:
        up.process.kill()
        up.process.wait()
