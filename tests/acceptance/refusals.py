"""Refusals of a server, and what a pool does meanwhile: its connections, its log, and when turns go on.

`python -m tests.acceptance.refusals --seconds 300` measures all of them side by side.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.acceptance.processes import Pool, Process
from tests.acceptance.sse import request
from tests.conftest import wait_until
from tests.failover.servers import Server, free_ports
from turnpool.errors import StoreAwayError

USER = "pool"
PASSWORD = "geheim"
DUMP = "dump.rdb"
# Clients that post all the time.
LOAD = 5

Act = Callable[[Any, Path], Awaitable[object]]


@dataclass
class Refusal:
    """What makes a server refuse, and what ends it; both get an administrator's client and its folder."""

    begin: Act
    end: Act


def _config(name: str, value: object) -> Act:
    return lambda admin, _: admin.config_set(name, value)


def _user(*rules: str) -> Act:
    return lambda admin, _: admin.execute_command("ACL", "SETUSER", USER, *rules)


def _then_cut(act: Act) -> Act:
    async def both(admin: Any, folder: Path) -> None:
        await act(admin, folder)
        await admin.execute_command("CLIENT", "KILL", "USER", USER)

    return both


async def _fail_to_save(admin: Any, folder: Path) -> None:
    (folder / DUMP / "in the way").mkdir(parents=True)
    await admin.config_set("save", "3600 1")
    await _save(admin, "err")


async def _save_again(admin: Any, folder: Path) -> None:
    (folder / DUMP / "in the way").rmdir()
    (folder / DUMP).rmdir()
    await _save(admin, "ok")


async def _save(admin: Any, expected: str) -> None:
    await admin.bgsave()

    async def saved() -> bool:
        return bool((await admin.info("persistence"))["rdb_last_bgsave_status"] == expected)

    await wait_until(saved)


REFUSALS = {
    "NOREPLICAS": Refusal(_config("min-replicas-to-write", 1), _config("min-replicas-to-write", 0)),
    "READONLY": Refusal(
        lambda admin, _: admin.execute_command("REPLICAOF", "127.0.0.1", 1),
        lambda admin, _: admin.execute_command("REPLICAOF", "NO", "ONE"),
    ),
    "NOPERM": Refusal(_user("-@all", "+ping", "+client|setinfo"), _user("+@all")),
    "OOM": Refusal(_config("maxmemory", 1), _config("maxmemory", 0)),
    "MISCONF": Refusal(_fail_to_save, _save_again),
    "maxclients": Refusal(_then_cut(_config("maxclients", 1)), _config("maxclients", 10_000)),
    "wrong password": Refusal(_then_cut(_user("resetpass", ">other")), _user("resetpass", f">{PASSWORD}")),
}


@dataclass
class Watched:
    """The most that were seen at once."""

    clients: int = 0
    sockets: dict[str, int] = field(default_factory=dict)


class Refused:
    """A pool of an API and a worker, on a server that can be made to refuse."""

    def __init__(self, folder: Path) -> None:
        (port,) = free_ports(1)
        self.server = Server(folder, port)
        self.folder = folder / str(port)
        self.admin: Any = Redis(host="127.0.0.1", port=port, single_connection_client=True)
        self.pool = Pool(folder, f"redis://{USER}:{PASSWORD}@127.0.0.1:{port}/0")
        self.seen = Watched()

    async def start(self) -> None:
        """All of it ready, one turn done."""
        await wait_until(self.server.answers)
        await self.admin.execute_command(
            "ACL", "SETUSER", USER, "on", f">{PASSWORD}", "allkeys", "allchannels", "+@all"
        )
        self.api = await self.pool.api()
        self.worker = await self.pool.worker()
        await self.run_turn(30)

    async def run_turn(self, seconds: float) -> float:
        """Post a turn as a client that tries again; gives the seconds until it has completed."""
        started = time.monotonic()
        turn = {"input": "hello", "agent": "simulated", "params": {"tokens": 2}}

        async def accepted() -> bool:
            answer = await request(self.api.port, "POST", "/v1/sessions/s/turns", turn)
            body = await answer.body()
            self._path = f"/v1/turns/{body['id']}" if answer.status == 202 else ""
            return answer.status == 202

        async def completed() -> bool:
            answer = await request(self.api.port, "GET", self._path)
            body = await answer.body()
            return answer.status == 200 and body["status"] == "completed"

        await wait_until(accepted, seconds)
        await wait_until(completed, seconds)
        return time.monotonic() - started

    async def refuse(self, refusal: Refusal, seconds: float) -> float:
        """Refuse for a time, under load; gives the seconds until a turn has completed after that."""
        load = [asyncio.create_task(self._post(f"load{n}")) for n in range(LOAD)]
        await refusal.begin(self.admin, self.folder)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            await self._look()
            await asyncio.sleep(0.25)
        for task in load:
            task.cancel()
        await asyncio.wait(load)
        await refusal.end(self.admin, self.folder)
        return await self.run_turn(60)

    async def _post(self, session: str) -> None:
        """Post a turn again and again, whatever is answered."""
        turn = {"input": "hello", "agent": "simulated", "params": {"tokens": 10}, "on_busy": "reject"}
        while True:
            answer = await request(self.api.port, "POST", f"/v1/sessions/{session}/turns", turn)
            answer.writer.close()
            await asyncio.sleep(0.5)

    async def _look(self) -> None:
        clients = await self.admin.client_list()
        self.seen.clients = max(self.seen.clients, len(clients) - 1)
        for process in (self.api, self.worker):
            name = process.log.stem
            self.seen.sockets[name] = max(self.seen.sockets.get(name, 0), sockets_of(process))

    def lines(self) -> dict[str, int]:
        """Lines in each log so far."""
        return {p.log.stem: p.log.read_bytes().count(b"\n") for p in (self.api, self.worker)}

    async def close(self) -> None:
        """End all of it."""
        await self.pool.close()
        await self.admin.aclose()
        await self.server.close()


def sockets_of(process: Process) -> int:
    """Sockets a process has open."""
    count = 0
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            count += str(link.readlink()).startswith("socket:")
        except OSError:  # closed by now
            continue
    return count


@asynccontextmanager
async def refused_pool(folder: Path) -> AsyncIterator[Refused]:
    """A pool on a server that can be made to refuse."""
    refused = Refused(folder)
    try:
        await refused.start()
        yield refused
    finally:
        await refused.close()


async def _measure(name: str, seconds: float, folder: Path, starting: asyncio.Lock) -> dict[str, object]:
    place = folder / name.replace(" ", "-")
    place.mkdir()
    async with AsyncExitStack() as stack:
        # All at once they would keep each other from starting in time.
        async with starting:
            refused = await stack.enter_async_context(refused_pool(place))
        before = refused.lines()
        try:
            after: object = round(await refused.refuse(REFUSALS[name], seconds), 2)
        except (TimeoutError, StoreAwayError, RedisError, OSError) as error:
            after = repr(error)
        lines = {log: count - before[log] for log, count in refused.lines().items()}
        return {
            "refusal": name,
            "clients_max": refused.seen.clients,
            "sockets_max": refused.seen.sockets,
            "log_lines": lines,
            "seconds_until_a_turn": after,
            "worker_status": refused.worker.status,
        }


async def _measure_all(seconds: float, names: list[str], folder: Path) -> None:
    starting = asyncio.Lock()
    for line in asyncio.as_completed([_measure(name, seconds, folder, starting) for name in names]):
        print(json.dumps(await line), flush=True)  # noqa: T201 - its result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(_measure_all(arguments.seconds, arguments.names or list(REFUSALS), Path(scratch)))
