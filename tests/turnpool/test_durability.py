"""Waiting until a turn is safe, on real servers."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.conftest import wait_until
from tests.failover.servers import Server, free_ports
from tests.turnpool.scripts.kit import MakeTurn, completed, take
from turnpool.errors import NotDurableError, SettingsError
from turnpool.redis.access import Role
from turnpool.settings import Durability, Settings
from turnpool.states import Status
from turnpool.store import durability
from turnpool.store.startup import check
from turnpool.store.store import Held, Store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

REPLICA = Durability.REPLICA


@asynccontextmanager
async def servers(folder: Path, *options: str, replicas: int = 0) -> AsyncIterator[list[Server]]:
    """A server, and replicas that are in step with it."""
    async with AsyncExitStack() as stack:
        ports = free_ports(1 + replicas)
        started: list[Server] = []
        for port in ports:
            of = ("--replicaof", f"127.0.0.1 {ports[0]}") if started else ()
            server = Server(folder, port, "--repl-diskless-sync-delay", "0", *options, *of)
            stack.push_async_callback(server.close)
            started.append(server)
            await wait_until(server.answers)

        async def in_step() -> bool:
            info = await started[0].client.info("replication")
            return [info[f"slave{n}"]["state"] for n in range(info["connected_slaves"])] == [
                "online"
            ] * replicas

        await wait_until(in_step)
        yield started


def settings(server: Server, durability: Durability) -> Settings:
    """Settings for this server."""
    return Settings(redis_url=f"redis://127.0.0.1:{server.port}/0", durability=durability, lease_seconds=0.5)


@asynccontextmanager
async def store_on(server: Server, durability: Durability) -> AsyncIterator[Store]:
    """A store on this server."""
    store = Store.connect(settings(server, durability))
    try:
        yield store
    finally:
        await store.close()


async def calls(server: Server, command: str) -> int:
    """How often a command was called."""
    stats: dict[str, Any] = await server.client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def test_a_turn_is_confirmed_once_it_is_on_disk(tmp_path: Path, new_turn: MakeTurn) -> None:
    """Of its claim and in its state; what is not there is not confirmed."""
    async with servers(tmp_path, "--appendonly", "yes", "--appendfsync", "everysec") as (server,):
        await check(settings(server, Durability.AOF), Role.API)
        checked = await calls(server, "waitaof")
        async with store_on(server, Durability.AOF) as store:
            submitted = await store.submit(new_turn())
            accepted = submitted.accepted_at or 0
            assert await store.confirm("default:s.1", created_at=accepted)
            assert not await store.confirm("default:s.1", created_at=accepted + 1)
            assert int((await server.client.info("persistence"))["aof_pending_bio_fsync"]) == 0
            claim, _ = await store.claim("turns", "w1")
            assert claim
            assert await store.confirm("default:s.1", claim=claim.name, status=Status.IN_PROGRESS)
            assert not await store.confirm("default:s.1", claim="another")
            await store.settle(Held("default:s.1", claim.turn.attempt, claim.turn.seq), [], completed())
            assert await store.confirm("default:s.1", claim=claim.name, status=Status.COMPLETED)
            assert not await store.confirm("default:s.1", claim=claim.name, status=Status.IN_PROGRESS)
            assert not await store.confirm("default:other.1")
            assert await calls(server, "waitaof") - checked == 7


async def test_many_turns_wait_together(tmp_path: Path, new_turn: MakeTurn) -> None:
    """A hundred turns of one moment cost some round trips, not a hundred."""
    async with servers(tmp_path, replicas=1) as (server, _), store_on(server, Durability.REPLICA) as store:
        submitted = [await store.submit(new_turn(f"s{n}")) for n in range(100)]
        assert all(await asyncio.gather(*(store.confirm(f"default:{turn.turn_id}") for turn in submitted)))
        assert 1 <= await calls(server, "wait") <= 3


async def test_without_a_replica_that_answers_nothing_is_confirmed(
    tmp_path: Path, new_turn: MakeTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that hangs has not got the turn; once it goes on it has."""
    async with servers(tmp_path, replicas=1) as (server, replica):
        await check(settings(server, Durability.REPLICA), Role.API)
        monkeypatch.setitem(durability.WAITS, Durability.REPLICA, ("WAIT", 1, 300))
        async with store_on(server, Durability.REPLICA) as store:
            replica.signal(signal.SIGSTOP)
            submitted = await store.submit(new_turn())
            with pytest.raises(NotDurableError, match="not confirmed within"):
                await store.confirm(f"default:{submitted.turn_id}")
            replica.signal(signal.SIGCONT)

            async def confirmed() -> bool:
                with suppress(NotDurableError):
                    return await store.confirm(f"default:{submitted.turn_id}")
                return False

            await wait_until(confirmed)
            assert b"turn:default:s.1" in b" ".join(await replica.client.keys("*"))


async def test_a_server_that_took_over_without_the_turn_confirms_nothing(
    tmp_path: Path, new_turn: MakeTurn
) -> None:
    """Its own mark is safe, but not the turn, which went to another."""
    async with (
        servers(tmp_path, replicas=1) as (server, replica),
        store_on(server, Durability.REPLICA) as store,
    ):
        submitted = await store.submit(new_turn())
        await server.client.flushall()
        assert not await store.confirm(f"default:{submitted.turn_id}")
        assert await replica.client.exists("turnpool:{0}:mark") == 1


async def test_a_step_is_confirmed_once_it_is_on_disk(tmp_path: Path, new_turn: MakeTurn) -> None:
    """What is recorded of it, and nothing else."""
    async with (
        servers(tmp_path, "--appendonly", "yes") as (server,),
        store_on(server, Durability.AOF) as store,
    ):
        await store.submit(new_turn())
        await store.record_step(await take(store), "charge", b"1")
        assert await store.confirm_step("default:s.1", "charge", b"1")
        assert not await store.confirm_step("default:s.1", "charge", b"")
        assert not await store.confirm_step("default:s.1", "other", b"1")


async def test_a_caller_that_is_cancelled_leaves_the_others_their_answers(
    tmp_path: Path, new_turn: MakeTurn
) -> None:
    """Those of its own round, and those that come after it."""
    async with (
        servers(tmp_path, replicas=1) as (server, replica),
        store_on(server, Durability.REPLICA) as store,
    ):
        for n in range(3):
            await store.submit(new_turn(f"s{n}"))
        replica.signal(signal.SIGSTOP)
        asked = [asyncio.create_task(store.confirm(f"default:s{n}.1")) for n in range(3)]

        async def waiting() -> bool:
            return bool((await server.client.info("clients"))["blocked_clients"])

        try:
            await wait_until(waiting)
            asked[0].cancel()
            await asyncio.wait({asked[0]})
        finally:
            replica.signal(signal.SIGCONT)
        assert await asyncio.wait_for(asyncio.gather(*asked[1:]), 5) == [True, True]
        assert await asyncio.wait_for(store.confirm("default:s0.1"), 5)


async def test_without_a_promise_nothing_is_waited_for(tmp_path: Path) -> None:
    """Not even asked."""
    async with servers(tmp_path) as (server,), store_on(server, Durability.NONE) as store:
        assert await store.confirm("default:s.1", status=Status.COMPLETED)
        assert await calls(server, "wait") == await calls(server, "set") == 0


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Durability.AOF, "TURNPOOL_DURABILITY=aof: the server writes no AOF; set appendonly yes"),
        (Durability.REPLICA, "TURNPOOL_DURABILITY=replica: no replica is connected"),
    ],
)
async def test_a_server_that_cannot_is_told_at_start(tmp_path: Path, kind: Durability, says: str) -> None:
    """And what it cannot do is not taken for done either."""
    async with servers(tmp_path) as (server,):
        with pytest.raises(SettingsError, match=says):
            await check(settings(server, kind), Role.API)
        if kind is Durability.AOF:
            async with store_on(server, kind) as store:
                with pytest.raises(NotDurableError, match="the server says: WAITAOF cannot be used"):
                    await store.confirm("default:s.1")


async def test_a_server_that_does_not_sync_is_told_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes an AOF but leaves the disk to the system: a write is tried, and what to set is said."""
    monkeypatch.setitem(durability.WAITS, Durability.AOF, ("WAITAOF", 1, 0, 300))
    says = r"^TURNPOOL_DURABILITY=aof, tried with a write: not confirmed within .* set appendfsync everysec"
    async with servers(tmp_path, "--appendonly", "yes", "--appendfsync", "no") as (server,):
        with pytest.raises(SettingsError, match=says):
            await check(settings(server, Durability.AOF), Role.API)
        assert 0 < await server.client.pttl("turnpool:{0}:mark") <= durability.MARK_MS


async def test_a_replica_that_hangs_is_told_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is connected, but confirms nothing."""
    monkeypatch.setitem(durability.WAITS, Durability.REPLICA, ("WAIT", 1, 300))
    async with servers(tmp_path, replicas=1) as (server, replica):
        replica.signal(signal.SIGSTOP)
        with pytest.raises(SettingsError, match="not confirmed within 3 s; see that its replica"):
            await check(settings(server, Durability.REPLICA), Role.API)


@pytest.mark.parametrize("kind", [Durability.AOF, Durability.REPLICA])
async def test_a_server_that_takes_no_writes_yet_is_not_checked(tmp_path: Path, kind: Durability) -> None:
    """It fails over, or loads: what it tells of itself is not how it will be, so a process starts."""
    async with servers(tmp_path, replicas=1) as (_, replica):
        with capture_logs() as logs:
            await check(settings(replica, kind), Role.API)
        assert [entry["event"] for entry in logs] == ["redis_check_skipped"]


async def test_a_server_that_may_throw_turns_away_is_warned_of(tmp_path: Path) -> None:
    """Once, when a process starts; one that is away is not waited for."""
    async with servers(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as (server,):
        with capture_logs() as logs:
            await check(settings(server, Durability.NONE), Role.API)
        assert [(entry["event"], entry["policy"]) for entry in logs] == [("redis_may_evict", "allkeys-lru")]
        await server.client.config_set("maxmemory-policy", "noeviction")
        with capture_logs() as logs:
            await check(settings(server, Durability.NONE), Role.API)
        assert logs == []
        server.kill()
        with capture_logs() as logs:
            await check(settings(server, Durability.AOF), Role.API)
        assert [entry["event"] for entry in logs] == ["redis_check_skipped"]
