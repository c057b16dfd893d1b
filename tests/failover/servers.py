"""Real servers: a cluster of three primaries and their replicas; a primary, two replicas and Sentinels."""

import asyncio
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import RedisError

from tests.acl import server_options
from tests.conftest import wait_until
from turnpool.local.valkey import server_binary

HOST = "127.0.0.1"
PRIMARIES = 3
# Milliseconds without an answer after which a node is taken for dead. Sentinels ask once a second, so that
# with less than two of them they fail over a healthy primary too.
NODE_TIMEOUT, DOWN_AFTER = 1000, 2500
NAME = "main"


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [int(sock.getsockname()[1]) for sock in sockets]


class Server:
    """One process of the server binary."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.port = port
        self.client: Any = Redis(host=HOST, port=port)
        self._folder = folder / str(port)
        self._folder.mkdir()
        self._command = [
            str(server_binary()),
            *options,
            *server_options(),
            "--port",
            str(port),
            "--bind",
            HOST,
        ]
        self._command += ["--dir", str(self._folder), "--logfile", str(self._folder / "log"), "--save", ""]
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()
        self._process.wait()

    async def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            return bool(await self.client.ping())
        except RedisError:
            return False

    async def close(self) -> None:
        """End it, and our own connection."""
        self.kill()
        await self.client.aclose()


class Servers:
    """Servers that belong together. `url`: of the store on them."""

    url: str

    def __init__(self) -> None:
        self.servers: list[Server] = []

    async def __aenter__(self) -> Self:
        """All ready."""
        try:
            await self.prepare()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """All gone."""
        await self.close()

    async def prepare(self) -> None:
        """Wait until all is in place."""
        for server in self.servers:
            await wait_until(server.answers)

    async def primaries(self) -> list[Server]:
        """Those that are primaries now, by their own account."""
        return [server for server in self.servers if await is_primary(server)]

    async def empty(self) -> None:
        """Delete everything."""
        for server in await self.primaries():
            await server.client.flushall()

    async def hang_up(self) -> None:
        """Close our own connections: another event loop is to use the servers."""
        for server in self.servers:
            await server.client.aclose()

    async def close(self) -> None:
        """End all."""
        for server in self.servers:
            await server.close()


async def is_primary(server: Server) -> bool:
    """Whether it is one by its own account; a dead one is none."""
    with suppress(RedisError):
        return bool((await server.client.role())[0] in {b"master", "master"})
    return False


class ClusterServers(Servers):
    """Three primaries with a third of the slots each, and a replica each."""

    def __init__(self, folder: Path, replicas: int = 1) -> None:
        super().__init__()
        self._count = PRIMARIES * (1 + replicas)
        ports = free_ports(2 * self._count)
        self._bus = dict(zip(ports[: self._count], ports[self._count :], strict=True))
        for port, bus in self._bus.items():
            options = ["--cluster-enabled", "yes", "--cluster-port", str(bus)]
            options += ["--cluster-node-timeout", str(NODE_TIMEOUT), "--cluster-replica-validity-factor", "0"]
            options += ["--repl-diskless-sync-delay", "0", "--cluster-allow-replica-migration", "no"]
            self.servers.append(Server(folder, port, *options))
        self.url = "redis+cluster://" + ",".join(f"{HOST}:{server.port}" for server in self.servers[:3])

    async def prepare(self) -> None:
        """Share out the slots, make all known to all, the last three replicas of the first."""
        await super().prepare()
        first = self.servers[0].client
        for epoch, server in enumerate(self.servers, 1):
            await server.client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
            await first.execute_command("CLUSTER MEET", HOST, server.port, self._bus[server.port])
        for part, server in enumerate(self.servers[:PRIMARIES]):
            start, end = (n * REDIS_CLUSTER_HASH_SLOTS // PRIMARIES for n in (part, part + 1))
            await server.client.execute_command("CLUSTER ADDSLOTSRANGE", start, end - 1)
        await wait_until(self._all_known, 30)
        for index, server in enumerate(self.servers[PRIMARIES:]):
            of = await self.node_id(self.servers[index % PRIMARIES])
            await server.client.execute_command("CLUSTER REPLICATE", of)
        await wait_until(self.settled, 30)

    async def node_id(self, server: Server) -> str:
        """A server's id in the cluster."""
        return str((await server.client.execute_command("CLUSTER MYID")).decode())

    async def owner(self, slot: int) -> Server:
        """The server that has a slot."""
        for server in await self.primaries():
            for first, last, (_, port, *_), *_ in await server.client.execute_command("CLUSTER", "SLOTS"):
                if first <= slot <= last and port == server.port:
                    return server
        raise LookupError(slot)

    async def _info(self, server: Server) -> dict[str, str]:
        return dict(await server.client.execute_command("CLUSTER INFO"))

    async def _all_known(self) -> bool:
        infos = [await self._info(server) for server in self.servers]
        return all(int(info["cluster_known_nodes"]) == self._count for info in infos)

    async def move(self, slot: int, target: Server) -> None:
        """Move a slot at once, as Valkey 9 does it."""
        source = await self.owner(slot)
        await source.client.execute_command(
            "CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", await self.node_id(target)
        )

        async def moved() -> bool:
            try:
                return await self.owner(slot) is target
            except LookupError:
                return False  # between the two nobody says that it is his

        await wait_until(moved)

    async def settled(self) -> bool:
        """All servers that live agree that all is well, and every replica is in step."""
        for server in self.servers:
            if not await server.answers():
                continue
            if (await self._info(server))["cluster_state"] != "ok":
                return False
            role = await server.client.role()
            if role[0] == b"slave" and role[3] != b"connected":
                return False
        return len(await self.primaries()) == PRIMARIES

    async def repair(self) -> None:
        """Start what was killed; it becomes a replica of its successor."""
        for server in self.servers:
            if not await server.answers():
                server.start()
                await wait_until(server.answers)
        await wait_until(self.settled, 30)


class SentinelServers(Servers):
    """A primary, two replicas, and three Sentinels that watch them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        ports = free_ports(6)
        # A primary that has lost its replicas may have lost its place too: it takes no writes.
        options = ["--repl-diskless-sync-delay", "0", "--min-replicas-to-write", "1"]
        self.servers.append(Server(folder, ports[0], *options))
        options += ["--replicaof", f"{HOST} {ports[0]}"]
        self.servers += [Server(folder, port, *options) for port in ports[1:3]]
        self.sentinels = [Server(folder, port, *_sentinel(folder, port, ports[0])) for port in ports[3:]]
        self.url = f"sentinel://{','.join(f'{HOST}:{port}' for port in ports[3:])}/0?master={NAME}"

    async def prepare(self) -> None:
        """Wait until every Sentinel knows all the others and the replicas."""
        await super().prepare()
        await wait_until(self.settled, 30)

    async def settled(self) -> bool:
        """Every Sentinel knows the other two and two replicas, which are in step."""
        for sentinel in self.sentinels:
            if not await sentinel.answers():
                return False
            state = await sentinel.client.sentinel_master(NAME)
            if (state["num-other-sentinels"], state["num-slaves"]) != (2, 2):
                return False
        roles = [await server.client.role() for server in self.servers]
        return [role[3] for role in roles if role[0] == b"slave"] == [b"connected"] * 2

    async def close(self) -> None:
        """End the Sentinels too."""
        await asyncio.gather(*(sentinel.close() for sentinel in self.sentinels))
        await super().close()


def _sentinel(folder: Path, port: int, primary: int) -> list[str]:
    config = folder / f"sentinel-{port}.conf"
    config.write_text(
        f"sentinel monitor {NAME} {HOST} {primary} 2\n"
        f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER}\n"
        f"sentinel failover-timeout {NAME} 5000\n"
        f"sentinel parallel-syncs {NAME} 2\n"
    )
    return [str(config), "--sentinel"]
