"""Flower, run as it runs in production."""

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from turnpool.local.valkey import server_command
from turnpool_workers import flower

FLOWER = str(Path(sys.executable).with_name("turnpool-flower"))
PASSWORD = "a colon: and a blank"


def free_port() -> int:
    """Choose a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """Run a broker for Flower."""
    port = free_port()
    with subprocess.Popen(server_command(port, tmp_path)) as server:
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()


def get(url: str, password: str | None = None) -> int:
    """Return the status of a GET."""
    pair = base64.b64encode(f"turnpool:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}"} if password else {}
    return httpx.get(url, headers=headers, trust_env=False).status_code


def wait_until_healthy(url: str) -> None:
    """Wait until Flower answers."""
    until = time.monotonic() + 20
    while True:
        try:
            if get(f"{url}/healthcheck") == 200:
                return
        except httpx.TransportError:
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.mark.slow
def test_without_a_password_it_does_not_start() -> None:
    """One clear line and status 2."""
    env = {name: value for name, value in os.environ.items() if "TURNPOOL" not in name}
    result = subprocess.run([FLOWER], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert "TURNPOOL_FLOWER_PASSWORD: it must be set" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.acceptance
def test_pages_and_api_need_the_password(redis_url: str) -> None:
    """Even where Flower's own variable opens the API; the log and the command line hide it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        **os.environ,
        "TURNPOOL_REDIS_URL": redis_url,
        "TURNPOOL_FLOWER_PORT": str(port),
        "TURNPOOL_FLOWER_PASSWORD": PASSWORD,
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    with subprocess.Popen([FLOWER], env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until_healthy(url)
            for page in ("/", "/api/workers", "/api/tasks"):
                assert get(url + page) == 401
                assert get(url + page, "wrong") == 401
                assert get(url + page, PASSWORD) == 200
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "flower_started" in log
    assert PASSWORD not in log


class MadeError(Exception):
    """Flower was made."""


def test_workers_that_are_gone_go_from_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default Flower shows every worker that ever was, so each rollout's pods; ours forgets in an hour."""
    made: dict[str, Any] = {}

    def make(**given: Any) -> None:
        made.update(given)
        raise MadeError

    monkeypatch.setattr(flower, "Flower", make)
    monkeypatch.setattr(flower, "configure", lambda *_: None)
    monkeypatch.setenv("TURNPOOL_FLOWER_PASSWORD", PASSWORD)
    with pytest.raises(MadeError):
        flower.serve()
    assert made["options"].purge_offline_workers == 3600
