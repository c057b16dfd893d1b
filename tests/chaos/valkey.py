"""The server: killed, frozen, and started again on the same port and data."""

import os
import signal
import socket
import subprocess
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.acl import server_options
from tests.conftest import wait_until
from turnpool.local.valkey import server_command


class Valkey:
    """A Valkey whose every answered write is on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = self._spawn()
        await wait_until(self._answers, 30)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [*server_command(self.port, self._folder), "--appendfsync", "always", *server_options()]
        with (self._folder / "valkey.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        if self._process and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process:
            self._process.kill()
            self._process.wait()

    async def _answers(self) -> bool:
        try:
            async with Redis.from_url(self.url) as redis:
                return bool(await redis.execute_command("PING"))  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            return False
