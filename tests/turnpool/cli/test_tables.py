"""`turnpool pool` and `turnpool turns`, where nobody watches."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.turnpool.cli.fake_api import answer, serving

pytestmark = pytest.mark.slow

TURNPOOL = str(Path(sys.executable).with_name("turnpool"))
POOL = {
    "queued": 3,
    "running": 2,
    "oldest_wait_seconds": 1.25,
    "workers": [{"id": "w-1", "slots": 200, "running": 2, "draining": True}],
}


def run(body: Any, *command: str) -> str:
    """Run a command against an API that gives one answer."""
    with serving(answer(200, body)) as api:
        result = subprocess.run(
            [TURNPOOL, *command, "--url", api.url],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    return result.stdout


def test_the_pool_is_printed_once() -> None:
    """Numbers and workers are there, and the command ends."""
    printed = run(POOL, "pool")
    assert "3 queued, 2 running, oldest waits 1.2 s" in printed
    assert "w-1" in printed
    assert "draining" in printed


def test_the_turns_of_a_session_are_printed_once() -> None:
    """Markup in an answer is text, not markup, and it cannot steer the terminal."""
    turn = {
        "id": "demo.1",
        "status": "completed",
        "agent": "chat",
        "attempt": 2,
        "created_at": 100.0,
        "ended_at": 102.5,
        "output": "[red]\x1bof\nsalt",
    }
    printed = run({"turns": [turn]}, "turns", "demo", "--once")
    assert "demo.1" in printed
    assert "2.5" in printed
    assert "[red]of" in printed
