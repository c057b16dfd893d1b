"""Connections to one server of Redis or Valkey: standalone, by Sentinel, or a node of a cluster.

URLs: `redis://[:password@]host:port/db`, `rediss://…` (TLS), `unix://…`, for Sentinel
`sentinel://[:password@]host:port[,host:port …]/db?master=NAME[&sentinel_password=…]`, and for Cluster
`redis+cluster://[:password@]host:port[,host:port …]` or `rediss+cluster://…` (`turnpool/cluster.py`).
"""

import re
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import (
    AskError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

# Seconds. A server that does not answer for so long is away; the caller says so or tries again.
CONNECT_TIMEOUT = 2.0
ANSWER_TIMEOUT = 5.0
# Connections of one process; more callers wait for a free one. Pipelines make a few enough.
CONNECTIONS = 16
SENTINEL_PORT = 26379
CLUSTER_PORT = 6379
LARGEST_PORT = 65_535
# Seconds. One Sentinel that hangs must not keep a process from asking the next.
SENTINEL_TIMEOUT = 1.0
PACKER = HiredisRespSerializer()
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
SCHEMES = ("redis", "rediss", "unix", "sentinel", *CLUSTER_SCHEMES)
# A host, in brackets if it is an IPv6 address, and its port.
PLACE = re.compile(r"(\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^\[\]:]+))(:(?P<port>\d*))?")

AWAY = (
    RedisConnectionError, RedisTimeoutError, ReadOnlyError, ClusterDownError, AskError, TryAgainError,
    OutOfMemoryError, OSError,
)  # fmt: skip
"""Errors that mean: Redis is away for now."""
# The same, of answers that redis-py has no class for.
AWAY_ANSWERS = ("BUSY ", "MISCONF", "NOREPLICAS", "UNKILLABLE")


def is_away(error: BaseException) -> bool:
    """Whether the error means that Redis is away for now (restarting, loading, failing over, full)."""
    return isinstance(error, AWAY) or (
        isinstance(error, ResponseError) and str(error).startswith(AWAY_ANSWERS)
    )


def check_url(url: str) -> str:
    """The URL itself. Raises ValueError if it is none of those above.

    The error shows no part of the URL, since it may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        msg = f"its scheme is not one of {', '.join(SCHEMES)} (redis://host:port/db)"
        raise ValueError(msg)
    if parts.scheme == "sentinel":
        _check_sentinel(parts)
    elif is_cluster(url):
        _check_cluster(parts)
    elif parts.scheme != "unix":
        _check_host(parts)
    return url


def _check_sentinel(parts: SplitResult) -> None:
    if not parse_qs(parts.query).get("master"):
        msg = "a sentinel URL needs its master's name: sentinel://host:port/0?master=NAME"
        raise ValueError(msg)
    if not (parts.path.strip("/") or "0").isdecimal():
        msg = "a sentinel URL's database is a number: sentinel://host:port/0?master=NAME"
        raise ValueError(msg)
    hosts_of(parts.netloc, SENTINEL_PORT)


def is_cluster(url: str) -> bool:
    """Whether the URL names a cluster."""
    return url.startswith(tuple(f"{scheme}://" for scheme in CLUSTER_SCHEMES))


def _check_cluster(parts: SplitResult) -> None:
    if parts.path.strip("/") not in {"", "0"}:
        msg = "a cluster has no databases: redis+cluster://host:port,host:port"
        raise ValueError(msg)
    hosts_of(parts.netloc, CLUSTER_PORT)


def _check_host(parts: SplitResult) -> None:
    try:
        _ = parts.port
    except ValueError:
        msg = "its port is no number up to 65535 (redis://host:port/db)"
        raise ValueError(msg) from None
    if not parts.hostname:
        msg = "the URL names no host (redis://host:port/db)"
        raise ValueError(msg)


def _mended(kind: type[Any]) -> type[Any]:
    """The kind of connection, but packing with hiredis, and with redis-py's own error when it is closed.

    redis-py's asyncio connections pack in Python, which takes longer than all else of a large pipeline. When
    one is closed while it sends uvloop raises RuntimeError, where asyncio's own transports stay silent, and
    redis-py passes that on; where redis-py itself has closed it, it finds no writer any more.
    """

    class Mended(kind):  # type: ignore[misc]
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

    return Mended


def _doubtful(kind: type[Any]) -> type[Any]:
    """The kind of connection, which is closed when its server has no replicas: the next asks the Sentinels.

    A primary that stood still, or was cut off, takes itself for one until they tell it, ten seconds later.
    """

    class Doubtful(kind):  # type: ignore[misc]
        async def read_response(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().read_response(*args, **kwargs)
            except ResponseError as error:
                if str(error).startswith("NOREPLICAS"):
                    self.mark_for_reconnect()
                raise

    return Doubtful


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the primary that the Sentinels name; more callers wait for a free one."""

    async def aclose(self) -> None:
        """Close the connections to the Sentinels too."""
        await super().aclose()
        await self.sentinel_manager.aclose()


def connect(
    url: str, *, connections: int = CONNECTIONS, answer_timeout: float | None = ANSWER_TIMEOUT
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
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        pool = BlockingConnectionPool.from_url(url, **pooled)
        pool.connection_class = _mended(pool.connection_class)
        return Redis.from_pool(pool)
    asked = options | _sentinel_login(parts)
    asked |= {"socket_connect_timeout": SENTINEL_TIMEOUT, "socket_timeout": SENTINEL_TIMEOUT}
    # redis-py has no types here.
    hosts = hosts_of(parts.netloc, SENTINEL_PORT)
    sentinel: Any = Sentinel(hosts, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(
        parse_qs(parts.query)["master"][0],
        redis_class=Redis,
        connection_pool_class=_SentinelPool,
        db=int(parts.path.strip("/") or 0),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        **pooled,
    )
    master.connection_pool.connection_class = _mended(_doubtful(master.connection_pool.connection_class))
    return master


def _sentinel_login(parts: SplitResult) -> dict[str, str]:
    """What the Sentinels themselves want to know; the user and password of the URL are the server's."""
    query = parse_qs(parts.query)
    names = ("username", "password")
    return {name: query[f"sentinel_{name}"][0] for name in names if f"sentinel_{name}" in query}


def database_of(url: str) -> int:
    """The number of the database that the URL names, 0 if it names none."""
    parts = urlsplit(url)
    if named := parse_qs(parts.query).get("db"):
        return int(named[0])
    path = "" if parts.scheme == "unix" else parts.path.strip("/")
    return int(path or 0)


def with_password(url: str, password: str) -> str:
    """The URL with the password, unless it has one."""
    parts = urlsplit(url)
    if not password or parts.password:
        return url
    user, _, hosts = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.rstrip(':')}:{quote(password, safe='')}@{hosts}").geturl()


def broker(url: str) -> tuple[str, dict[str, Any]]:
    """Celery's broker URL and transport options for one of our URLs."""
    parts = urlsplit(url)
    if parts.scheme == "rediss" and "ssl_cert_reqs" not in parse_qs(parts.query):
        # Celery would take any certificate, and send the password to whoever shows it.
        query = "&".join(filter(None, (parts.query, "ssl_cert_reqs=required")))
        return parts._replace(query=query).geturl(), {}
    if parts.scheme != "sentinel":
        return url.replace("unix://", "redis+socket://", 1), {}
    user, at, _ = parts.netloc.rpartition("@")
    secret = user + at
    places = [place(*host) for host in hosts_of(parts.netloc, SENTINEL_PORT)]
    urls = [f"sentinel://{secret}{host}{parts.path}" for host in places]
    options: dict[str, Any] = {"master_name": parse_qs(parts.query)["master"][0]}
    if login := _sentinel_login(parts):
        options["sentinel_kwargs"] = login
    return ";".join(urls), options


def hosts_of(netloc: str, port: int) -> list[tuple[str, int]]:
    """Hosts and ports of a URL that names several. Raises ValueError."""
    hosts = []
    for part in netloc.rpartition("@")[2].split(","):
        match = PLACE.fullmatch(part)
        if not match or int(match["port"] or port) > LARGEST_PORT:
            msg = "each of its places is host or host:port, where port is a number"
            raise ValueError(msg)
        hosts.append((match["ipv6"] or match["host"], int(match["port"] or port)))
    return hosts


def place(host: str, port: int) -> str:
    """A host and its port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
