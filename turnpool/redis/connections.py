"""Connections to one server of Redis or Valkey: standalone, by Sentinel, or a node of a cluster."""

from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    ResponseError,
)
from redis.maint_notifications import MaintNotificationsConfig

from turnpool.redis.urls import Kind, RedisUrl

# Seconds. A server that does not answer for so long is away; the caller says so or tries again.
CONNECT_TIMEOUT = 2.0
ANSWER_TIMEOUT = 5.0
# Connections of one process; more callers wait for a free one. Pipelines make a few enough.
CONNECTIONS = 16
# Seconds. One Sentinel that hangs must not keep a process from asking the next.
SENTINEL_TIMEOUT = 1.0
PACKER = HiredisRespSerializer()


def _with_hiredis_packer(kind: type[Any]) -> type[Any]:
    """The kind of connection, but packing with hiredis, and with redis-py's own error when it is closed.

    redis-py's asyncio connections pack in Python, which takes longer than all else of a large pipeline. When
    one is closed while it sends uvloop raises RuntimeError, where asyncio's own transports stay silent, and
    redis-py passes that on; where redis-py itself has closed it, it finds no writer any more.
    """

    class WithHiredisPacker(kind):  # type: ignore[misc]
        def pack_command(self, *args: Any) -> list[bytes]:
            packed: list[bytes] = PACKER.pack(*args)
            return packed

        async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            try:
                await super().send_packed_command(*args, **kwargs)
            except (RuntimeError, AttributeError) as error:
                if isinstance(error, AttributeError) and error.obj is not None:
                    raise
                raise RedisConnectionError(f"The connection was closed: {error}") from error

    return WithHiredisPacker


def _reconnecting_on_noreplicas(kind: type[Any]) -> type[Any]:
    """The kind of connection, which is closed when its server has no replicas: the next asks the Sentinels.

    A primary that stood still, or was cut off, takes itself for one until they tell it, ten seconds later.
    """

    class ReconnectingOnNoReplicas(kind):  # type: ignore[misc]
        async def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().read_response(*args, **kwargs)
            except ResponseError as error:
                if str(error).startswith("NOREPLICAS"):
                    self.mark_for_reconnect()
                raise

    return ReconnectingOnNoReplicas


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the primary that the Sentinels name; more callers wait for a free one."""

    async def aclose(self) -> None:
        """Close the connections to the Sentinels too."""
        await super().aclose()
        await self.sentinel_manager.aclose()


def connect(
    url: RedisUrl, *, connections: int = CONNECTIONS, answer_timeout: float | None = ANSWER_TIMEOUT
) -> Redis:
    """A client of one server; it connects with the first command, and tries nothing twice by itself."""
    options: dict[str, Any] = {
        # Where they are on, as by default, redis-py takes a closed connection from its pool for a good one.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": answer_timeout,
        # Otherwise redis-py sends a command again that may have been carried out.
        "retry": Retry(NoBackoff(), 0),
    }
    pooled = options | {"max_connections": connections, "timeout": ANSWER_TIMEOUT}
    pooled |= {"db": url.database, **url.login, **(url.tls.options if url.tls else {})}
    if url.sentinels is None:
        return Redis.from_pool(BlockingConnectionPool(**pooled | _place(url)))
    asked = options | url.sentinel_options
    asked |= {"socket_connect_timeout": SENTINEL_TIMEOUT, "socket_timeout": SENTINEL_TIMEOUT}
    # redis-py has no types here.
    sentinel: Any = Sentinel(url.hosts, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(
        url.sentinels.master,
        redis_class=Redis,
        connection_pool_class=_SentinelPool,
        ssl=url.tls is not None,
        **pooled,
    )
    master.connection_pool.connection_class = _with_hiredis_packer(
        _reconnecting_on_noreplicas(master.connection_pool.connection_class)
    )
    return master


def _place(url: RedisUrl) -> dict[str, Any]:
    """What redis-py takes for a place without Sentinels."""
    if url.kind is Kind.UNIX:
        return {"connection_class": _with_hiredis_packer(UnixDomainSocketConnection), "path": url.path}
    ((host, port),) = url.hosts
    connection_class = _with_hiredis_packer(SSLConnection if url.tls else Connection)
    return {"connection_class": connection_class, "host": host, "port": port}
