"""The tools of requirements/deploy.txt, and the repository they look at."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
COMPOSE_FILE = REPO / "compose" / "compose.yaml"
SECONDS = 30  # none of them does more than read files


def tool(name: str) -> str:
    """Path of a tool. Without it the test is skipped, but fails in CI, where it has to be there."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if path:
        return path
    reason = f"{name} is not installed: requirements/deploy.txt"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def compose(*arguments: str, **variables: str) -> str:
    """Output of Compose, run on the shipped file without the settings of whoever runs the tests."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")} | variables
    command = [tool("docker-compose"), "--env-file", os.devnull, "--file", str(COMPOSE_FILE), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout
