"""A primary is killed under load: every turn that got 202 completes, no stream has a hole."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.acceptance.processes import Pool
from tests.conftest import wait_until
from tests.failover.load import Load, check_streams
from tests.failover.servers import ClusterServers, SentinelServers, is_primary
from turnpool.states import Status

pytestmark = [pytest.mark.anyio, pytest.mark.acceptance, pytest.mark.timeout(180)]

# Settings of the processes.
ENV = {"DURABILITY": "replica"}


@asynccontextmanager
async def pool_on(folder: Path, redis_url: str, broker_url: str = "") -> AsyncIterator[tuple[Pool, Load]]:
    """Two APIs and two workers, and clients of them."""
    pool = Pool(folder, redis_url, broker_url, **ENV)
    try:
        ports = [(await pool.api()).port for _ in range(2)]
        for _ in range(2):
            await pool.worker()
        yield pool, Load(ports)
    finally:
        await pool.close()


Condition = Callable[[], Awaitable[bool]]


async def kill_under_load(
    pool: Pool, load: Load, kill: Callable[[], Awaitable[Condition]], mend: Callable[[], Awaitable[None]]
) -> None:
    """Kill; once another has taken over, mend and go on for a while; then everything has completed."""
    async with load.running():
        await load.so_many_more(45)
        over = await kill()
        await wait_until(over, 30)
        await mend()
        await load.so_many_more(60)
    restarted = check_streams(await load.streams())
    await wait_until(pool.store_answers, 10)
    for turn_id in load.accepted:
        turn = await pool.store.turn(turn_id, "default")
        assert (turn.status, turn.losses) == (Status.COMPLETED, 0)
        roles = [message["role"] for message in await pool.store.messages(turn.session_id, "default")]
        assert roles == ["user", "assistant"], turn_id
    state = await pool.store.queue_state("turns")
    assert (state.queued, state.running) == (0, 0)
    assert load.refused > 0, "nobody noticed"
    assert restarted == 0, f"{restarted} of {len(load.accepted)} turns were restarted"


async def test_a_primary_of_sentinels_is_killed(sentinels: SentinelServers, tmp_path: Path) -> None:
    """Store and broker are the primary that dies; a replica is promoted."""
    async with pool_on(tmp_path, sentinels.url) as (pool, load):

        async def kill() -> Condition:
            (primary,) = await sentinels.primaries()
            primary.kill()

            async def another() -> bool:
                return bool(await sentinels.primaries()) and await pool.store_answers()

            return another

        async def mend() -> None:
            """One replica is left, which is enough."""

        await kill_under_load(pool, load, kill, mend)


async def test_a_primary_of_sentinels_stands_still(sentinels: SentinelServers, tmp_path: Path) -> None:
    """A replica is promoted; then the old one goes on, a primary by its own account, until it is told."""
    async with pool_on(tmp_path, sentinels.url) as (pool, load):
        (old,) = await sentinels.primaries()
        others = [server for server in sentinels.servers if server is not old]

        async def stop() -> Condition:
            old.signal(signal.SIGSTOP)

            async def another() -> bool:
                # A replica that has not left the old one yet confirms what is lost (docs/reliability.md).
                return all(
                    [
                        (await server.client.info("replication")).get("master_port") != old.port
                        for server in others
                    ]
                )

            return another

        async def go_on() -> None:
            old.signal(signal.SIGCONT)
            await load.so_many_more(45)
            assert len(await sentinels.primaries()) == 2, "turns had to wait until it was told"

            async def told() -> bool:
                return not await is_primary(old)

            await wait_until(told, 30)

        await kill_under_load(pool, load, stop, go_on)


async def test_a_primary_of_a_cluster_is_killed(
    cluster: ClusterServers, redis_url: str, tmp_path: Path
) -> None:
    """A third of the partitions is away until the replica has taken over."""

    async def kill() -> Condition:
        primary = (await cluster.primaries())[1]
        primary.kill()
        return cluster.settled

    async with pool_on(tmp_path, cluster.url, redis_url) as (pool, load):
        # As an orchestrator does: the one that took over needs a replica of its own.
        await kill_under_load(pool, load, kill, cluster.repair)
