"""The shipped compose.yaml, up on a real engine, under a project name and secrets of its own."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.compose.tools import COMPOSE_FILE, REPO, tool
from tests.conftest import AGENTS

PROJECT = "turnpool-smoke"
SECONDS = 300  # an image may have to be fetched
TERMINAL = {"completed", "failed", "cancelled"}
PORTS = ("TURNPOOL_API_PORT", "TURNPOOL_FLOWER_PORT")


@dataclass(frozen=True)
class Container:
    """A container as the engine describes it."""

    id: str
    status: str
    health: str | None
    exit_code: int
    grace: int


def run(*command: str, env: dict[str, str] | None = None) -> str:
    """Output of a command that has to succeed."""
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=REPO
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def docker(*arguments: str) -> str:
    """Output of the engine's own command line."""
    return run("docker", *arguments, env=os.environ | {"DOCKER_BUILDKIT": "1"})


def build(target: str, image: str) -> None:
    """Build a stage of the Dockerfile."""
    docker("build", "--file", "compose/Dockerfile", "--target", target, "--tag", image, ".")


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


class Stack:
    """A running installation."""

    def __init__(self, folder: Path) -> None:
        """Make its secrets in `folder`."""
        run(shutil.copy(str(REPO / "compose" / "secrets.sh"), str(folder)))
        self.secrets = folder / "secrets"
        self._override = folder / "override.json"
        files = {file.name: {"file": str(file)} for file in self.secrets.iterdir()}
        self._override.write_text(json.dumps({"secrets": files}))
        ports = {name: str(_free_port()) for name in PORTS}
        self._env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TURNPOOL_WORKERS": "1"} | ports
        self._env["TURNPOOL_AGENTS"] = AGENTS
        if "DOCKER_HOST" in os.environ:
            self._env["DOCKER_HOST"] = os.environ["DOCKER_HOST"]
        key = self.secret("turnpool_api_keys").partition(":")[2]
        self.api = httpx.Client(
            base_url=f"http://127.0.0.1:{ports['TURNPOOL_API_PORT']}",
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
        )
        self.flower = f"http://127.0.0.1:{ports['TURNPOOL_FLOWER_PORT']}"

    def secret(self, name: str) -> str:
        """What a secret file holds."""
        return (self.secrets / name).read_text()

    def compose(self, *arguments: str, **variables: str) -> str:
        """Run Compose on the shipped file."""
        files = ("--file", str(COMPOSE_FILE), "--file", str(self._override))
        command = (tool("docker-compose"), "--env-file", os.devnull, "--project-name", PROJECT, *files)
        return run(*command, *arguments, env=self._env | variables)

    def up(self, *arguments: str, **variables: str) -> None:
        """Start, and wait until every container is healthy."""
        self.compose("up", "--detach", "--no-build", "--wait", *arguments, **variables)

    def containers(self, service: str) -> list[Container]:
        """All containers of a service, those that ended too."""
        ids = self.compose("ps", "--all", "--quiet", service).split()
        described: list[dict[str, Any]] = json.loads(docker("inspect", *ids)) if ids else []
        return [
            Container(
                id=one["Id"],
                status=one["State"]["Status"],
                health=one["State"].get("Health", {}).get("Status"),
                exit_code=one["State"]["ExitCode"],
                grace=one["Config"].get("StopTimeout") or 0,
            )
            for one in described
        ]

    def post_turns(self, prefix: str, count: int, **params: int) -> list[str]:
        """Post simulated turns, each in a session of its own; gives their ids."""
        body = {"input": "hello", "agent": "simulated", "params": params}
        ids = []
        for number in range(count):
            answer = self.api.post(f"/v1/sessions/{prefix}-{number}/turns", json=body)
            assert answer.status_code == httpx.codes.ACCEPTED, answer.text
            ids.append(f"{prefix}-{number}.1")
        return ids

    def turn(self, turn_id: str) -> dict[str, Any]:
        """A turn."""
        answer = self.api.get(f"/v1/turns/{turn_id}")
        assert answer.status_code == httpx.codes.OK, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def restarts(self, turn_id: str) -> list[str]:
        """Why the turn was begun again, once for each time."""
        text = self.api.get(f"/v1/turns/{turn_id}/events", headers={"Accept": "text/event-stream"}).text
        events = [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]
        return [event["reason"] for event in events if event["type"] == "turn.restarted"]

    def running(self) -> int:
        """Turns that run now."""
        return int(self.api.get("/v1/pool").json()["running"])

    def ended(self, turn_ids: list[str], seconds: float) -> list[dict[str, Any]]:
        """The turns once none of them is queued or running."""
        turns: list[dict[str, Any]] = []

        def all_ended() -> bool:
            turns[:] = [self.turn(turn_id) for turn_id in turn_ids]
            return all(turn["status"] in TERMINAL for turn in turns)

        wait_for(all_ended, seconds)
        return turns

    def down(self) -> None:
        """Remove all of it."""
        self.api.close()
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "5")


def started(folder: Path) -> Iterator[Stack]:
    """A stack that is up, and is removed afterwards."""
    stack = Stack(folder)
    try:
        stack.up()
        yield stack
    except BaseException:
        print(stack.compose("logs", "--tail", "50"))  # noqa: T201 - pytest shows it where a test failed
        raise
    finally:
        stack.down()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
