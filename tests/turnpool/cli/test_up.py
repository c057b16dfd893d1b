"""What keeps `turnpool up` from starting; its whole run is an acceptance test."""

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TURNPOOL = str(Path(sys.executable).with_name("turnpool"))


def up(folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a `turnpool up` that is expected to end by itself."""
    clean = {name: value for name, value in os.environ.items() if "TURNPOOL" not in name}
    return subprocess.run(
        [TURNPOOL, "up", "--simulated", *options],
        cwd=folder,
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_busy_port_is_one_clear_line_before_anything_starts(tmp_path: Path) -> None:
    """No process has said anything, and the exit status is 1."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        result = up(tmp_path, "--port", str(port))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"Port {port} (api) cannot be used: address already in use. Choose another with --port.\n"
    )


def test_two_never_share_a_data_folder(tmp_path: Path) -> None:
    """The second one says so and ends."""
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = up(tmp_path, "--data", str(tmp_path))
    assert result.returncode == 1
    assert "Another turnpool up uses" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_wrong_setting_is_one_clear_line(tmp_path: Path) -> None:
    """It names the variable, and the exit status is 2."""
    result = up(tmp_path, TURNPOOL_CONCURRENCY="many")
    assert result.returncode == 2
    assert "TURNPOOL_CONCURRENCY" in result.stderr
    assert result.stderr.count("\n") == 1
