"""Whether a process belongs to the pool whose data the store holds.

The store's record names the version of the schema and the pool, by an id made at random. The broker's
record repeats the id, and lives for a minute after the last process of the pool. So a process whose release
does not know the schema refuses to start, and so does one that was given the broker of another pool.
"""

import asyncio
import os
import secrets
import sys
from typing import Any

from redis.asyncio import Redis

from turnpool import keys
from turnpool.errors import SettingsError, StoreAwayError
from turnpool.logs import get_logger
from turnpool.redis.cluster import open_nodes
from turnpool.redis.connections import connect
from turnpool.redis.errors import DRIVER_ERRORS, is_away
from turnpool.redis.nodes import Nodes
from turnpool.settings import Settings

log = get_logger(__name__)

SCHEMA = 1
"""Version of the keys and their contents. It changes when the release before could not work with them."""

# Seconds the broker's record lives, and between two writes of it; seconds between tries while Redis is away.
RECORD_SECONDS, REFRESH_SECONDS, AWAY_PAUSE = 60, 15.0, 0.5
# Key of releases before there was a schema version. No later release writes it.
OLD_KEY = "accepted"


class Membership:
    """One process's place in the pool."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool = ""

    async def enter(self) -> None:
        """Join the pool if Redis answers. Raises SettingsError if the process does not belong to it."""
        try:
            await self._join()
        except (StoreAwayError, *DRIVER_ERRORS) as error:
            log.warning("pool_not_joined", error=str(error))

    async def stay(self) -> None:
        """Keep the records until cancelled. End the process, status 2, if it does not belong to the pool.

        A process that started while Redis was away joins here. Records that a server lost are written again.
        """
        while True:
            try:
                await self._join()
                pause = REFRESH_SECONDS
            except SettingsError as error:
                print(f"turnpool: {error.message}", file=sys.stderr, flush=True)  # noqa: T201 - as at the start
                os._exit(2)
            except (StoreAwayError, *DRIVER_ERRORS) as error:
                if not is_away(error):
                    log.exception("pool_not_joined")
                pause = AWAY_PAUSE
            await asyncio.sleep(pause)

    async def _join(self) -> None:
        settings = self._settings
        nodes = open_nodes(settings.store, settings.namespace, connections=1)
        try:
            await nodes.find()
            pool = await self._join_store(nodes)
        finally:
            await nodes.close()
        if not settings.is_one_server:
            broker = connect(settings.broker, connections=1)
            try:
                await self._join_broker(broker, pool)
            finally:
                await broker.aclose()
        self._pool = pool

    async def _join_store(self, nodes: Nodes) -> str:
        """Return the id of the pool, which its first process makes."""
        prefix = nodes.prefixes[0]
        name = keys.pool(prefix)
        if not self._pool and await nodes.execute(prefix, "EXISTS", f"{prefix}{OLD_KEY}"):
            raise SettingsError(
                f"TURNPOOL_REDIS_URL: namespace {self._settings.namespace!r} of the store has data of an "
                "earlier release, which this one cannot read; use another database or TURNPOOL_NAMESPACE, "
                "or delete the data"
            )
        await nodes.execute(prefix, "HSETNX", name, "schema", SCHEMA)
        await nodes.execute(prefix, "HSETNX", name, "id", self._pool or secrets.token_hex(8))
        schema, pool = await nodes.execute(prefix, "HMGET", name, "schema", "id")
        if schema != str(SCHEMA).encode():
            raise SettingsError(
                f"TURNPOOL_REDIS_URL: the store has schema {schema.decode()}, and this release needs schema "
                f"{SCHEMA}; start the release that wrote the store, or use another database or "
                "TURNPOOL_NAMESPACE"
            )
        return str(pool.decode())

    async def _join_broker(self, broker: Redis, pool: str) -> None:
        namespace = self._settings.namespace
        name = keys.pool(keys.prefix(namespace, "0"))
        found: Any = await broker.set(name, pool, nx=True, get=True, ex=RECORD_SECONDS)
        known = found.decode() if found else pool
        # The id this process joined under may be in the broker although the store has lost it.
        if known not in {pool, self._pool}:
            raise SettingsError(
                f"TURNPOOL_BROKER_URL: the broker serves another pool with namespace {namespace!r}; give "
                "each pool a database or a TURNPOOL_NAMESPACE of its own"
            )
        await broker.set(name, pool, ex=RECORD_SECONDS)
