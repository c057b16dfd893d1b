"""A pool of real processes: API and worker, started by their console scripts."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from tests.acl import limited
from tests.conftest import AGENTS, wait_until
from tests.serving import serving
from turnpool.errors import StoreAwayError
from turnpool.settings import Settings
from turnpool.store.store import Store

SCRIPTS = Path(sys.executable).parent

P = TypeVar("P", bound="Process")


class Process:
    """One process, its log in a file."""

    def __init__(self, name: str, log: Path, env: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                self.command(name), env={**os.environ, **env}, stdout=output, stderr=subprocess.STDOUT
            )

    def command(self, name: str) -> list[str]:
        """What is run for a console script."""
        return [str(SCRIPTS / name)]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._popen.poll()

    def catches(self, number: signal.Signals) -> bool:
        """Whether it has a handler for a signal. Only Linux tells; elsewhere it is taken to have one."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            return True
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> number - 1 & 1)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._popen.send_signal(number)

    async def exit(self, seconds: float = 20) -> int:
        """Its exit status, once it has ended."""
        async with asyncio.timeout(seconds):
            return await asyncio.to_thread(self._popen.wait)

    def stop(self) -> None:
        """Make sure it is gone."""
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()

    def events(self) -> list[dict[str, object]]:
        """The JSON lines of its log so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


class Api(Process):
    """An API process."""

    @property
    def port(self) -> int:
        """Its port; 0 until it listens."""
        for event in self.events():
            # The second is the previous release's (test_previous.py).
            if event["event"] in {"api_started", "api_listens"}:
                return int(str(event["port"]))
        return 0


class Pool:
    """The processes of one test, on one Redis."""

    def __init__(self, folder: Path, redis_url: str, broker_url: str = "", **env: str) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self._base = {"REDIS_URL": redis_url, "BROKER_URL": broker_url or redis_url, "AGENTS": AGENTS} | env
        namespace = env.get("NAMESPACE", "turnpool")
        self.store = Store.connect(
            Settings(redis_url=redis_url, broker_url=broker_url or redis_url, namespace=namespace)
        )
        self._processes: list[Process] = []

    async def api(self, **env: str) -> Api:
        """Start an API process and wait until it listens."""
        api = self.start(Api, "turnpool-api", **env)

        async def listens() -> bool:
            return api.port > 0

        await wait_until(listens, 20)
        return api

    async def worker(self, *, wait: bool = True, kind: type[Process] = Process, **env: str) -> Process:
        """Start a worker process and wait until it is known."""
        worker = self.start(kind, "turnpool-worker", **env)

        async def known() -> bool:
            return any(info.id.endswith(f"-{worker.pid}") for info in await self.store.workers())

        if wait:
            await wait_until(known, 20)
        return worker

    async def store_answers(self) -> bool:
        """Whether the store answers, all of it."""
        try:
            return await self.store.ping()
        except StoreAwayError:
            return False

    async def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.stop()
        await self.store.close()

    def start(self, kind: type[P], script: str, **env: str) -> P:
        """Start a process by its console script, with these settings, and do not wait for it."""
        process = kind(script, self._log(script.removeprefix("turnpool-")), self._env(env))
        self._processes.append(process)
        return process

    def _env(self, env: dict[str, str]) -> dict[str, str]:
        base = {**self._base, "PORT": "0", "METRICS_PORT": "0", **env}
        base |= {name: limited(base[name]) for name in ("REDIS_URL", "BROKER_URL")}
        return {f"TURNPOOL_{name}": value for name, value in base.items()}

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}-{len(self._processes)}.log"


@asynccontextmanager
async def mute_server() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A server that answers nothing: its port, and whether it was asked."""
    asked = asyncio.Event()

    async def hear(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with serving(hear) as port:
        yield port, asked
