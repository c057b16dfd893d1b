"""A real nginx in front of the API, with what the chart's Ingress tells an ingress-nginx."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.processes import Api, Pool
from tests.acceptance.sse import Frame, check_dense, post_turn, request, text_of, words
from tests.conftest import wait_until
from tests.helm.cases import URL, over
from tests.helm.tools import pick, render, unavailable

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

PRESET = "nginx.ingress.kubernetes.io/"
# Annotations that are nginx' directives by another name; times are in seconds.
DIRECTIVES = ("proxy-buffering", "proxy-request-buffering", "proxy-http-version")
TIMES = ("proxy-read-timeout", "proxy-send-timeout")


def directives() -> str:
    """The Ingress' annotations as the controller writes them into nginx' configuration."""
    values = over(URL, {"ingress": {"enabled": True, "preset": "nginx", "hosts": ["pool.example.com"]}})
    annotations = pick(render(values), "Ingress")["metadata"]["annotations"]
    settings = {name.removeprefix(PRESET): value for name, value in annotations.items() if PRESET in name}
    assert set(settings) == {*DIRECTIVES, *TIMES}
    lines = [f"{name.replace('-', '_')} {settings[name]};" for name in DIRECTIVES]
    lines += [f"{name.replace('-', '_')} {settings[name]}s;" for name in TIMES]
    return "\n".join(lines)


class Nginx:
    """An nginx of its own, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, api: Api) -> None:
        """Serve in front of an API."""
        binary = shutil.which("nginx", path=os.defpath + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
        if not binary:
            unavailable("nginx is not installed (Debian, Ubuntu: apt install nginx-light)")
        self.configure(api)
        self._process = subprocess.Popen(
            [str(binary), "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off;"]
        )

    def configure(self, api: Api) -> None:
        """Write the configuration."""
        # As ingress-nginx has it: workers that are replaced wait for their streams.
        self.folder.joinpath("nginx.conf").write_text(
            f"""
            pid nginx.pid; error_log error.log; worker_processes 1; worker_shutdown_timeout 240s;
            events {{ worker_connections 512; }}
            http {{
              access_log off;
              server {{
                listen 127.0.0.1:{self.port};
                location / {{ proxy_pass http://127.0.0.1:{api.port}; proxy_set_header Connection "";
                {directives()}
                }}
              }}
            }}
            """
        )

    def reload(self) -> None:
        """Take the configuration as it is now."""
        assert self._process
        self._process.send_signal(signal.SIGHUP)

    async def serves(self) -> bool:
        """Whether it answers."""
        try:
            answer = await request(self.port, "GET", "/readyz")
        except OSError:
            return False
        answer.writer.close()
        return answer.status == 200

    def stop(self) -> None:
        """End it at once, its workers too."""
        if self._process:
            self._process.terminate()
            self._process.wait(10)


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """An nginx that ends with the test."""
    folder = tmp_path / "nginx"
    folder.mkdir()
    nginx = Nginx(folder)
    yield nginx
    nginx.stop()


def simulated(tokens: int, itl_ms: float) -> dict[str, object]:
    """A turn of so many tokens."""
    return {"input": "hi", "agent": "simulated", "params": {"tokens": tokens, "itl_ms": itl_ms}}


async def test_tokens_are_not_held_back(pool: Pool, nginx: Nginx) -> None:
    """Each comes when it is made: 200 ms after the one before, not all at the end."""
    api = await pool.api()
    await pool.worker()
    nginx.start(api)
    await wait_until(nginx.serves)
    answer = await post_turn(nginx.port, "s", simulated(20, 200))
    frames = [frame async for frame in answer.frames()]
    check_dense(frames)
    deltas = [frame for frame in frames if frame.event == "turn.output_text.delta"]
    assert len(deltas) == 20
    made = [frame.data["created_at"] - deltas[0].data["created_at"] for frame in deltas]
    came = [frame.at - deltas[0].at for frame in deltas]
    # Held back, the first would come as late as the last: nearly 4 s.
    assert max(abs(at - due) for at, due in zip(came, made, strict=True)) < 1


async def test_a_stream_of_three_minutes_lives_through_a_reload(pool: Pool, nginx: Nginx) -> None:
    """Silence cuts nothing; a reload neither, and who comes again after it misses nothing."""
    api = await pool.api()
    await pool.worker()
    nginx.start(api)
    await wait_until(nginx.serves)
    started = time.monotonic()
    # Two tokens, 175 s apart: pings alone keep the stream open.
    silent = await post_turn(nginx.port, "silent", simulated(2, 175_000))
    talking = await post_turn(nginx.port, "talks", simulated(600, 300))
    resumed: list[Frame] = []
    async for frame in talking.frames():
        resumed.append(frame)
        if len(resumed) == 50:
            nginx.reload()
        if len(resumed) == 100:
            break  # the client goes, and comes again through the new nginx workers
    headers = {"Last-Event-ID": str(resumed[-1].id)}
    rest = await request(nginx.port, "GET", "/v1/turns/talks.1/events", headers=headers)
    resumed += [frame async for frame in rest.frames()]
    check_dense(resumed)
    assert text_of(resumed) == words(600)
    frames = [frame async for frame in silent.frames()]
    check_dense(frames)
    assert frames[-1].event == "turn.completed"
    assert time.monotonic() - started > 175
