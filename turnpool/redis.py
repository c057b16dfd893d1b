"""Connections to Redis or Valkey, standalone or by Sentinel.

URLs: `redis://[:password@]host:port/db`, `rediss://…` (TLS), `unix://…`, and for Sentinel
`sentinel://[:password@]host:port[,host:port …]/db?master=NAME`.
"""

from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

# Seconds. A server that does not answer for so long is away; the caller says so or tries again.
CONNECT_TIMEOUT = 2.0
ANSWER_TIMEOUT = 5.0
# Connections of one process; more callers wait for a free one. Pipelines make a few enough.
CONNECTIONS = 16
SENTINEL_PORT = 26379
SCHEMES = ("redis", "rediss", "unix", "sentinel")

AWAY = (
    RedisConnectionError, RedisTimeoutError, ReadOnlyError, ClusterDownError, OutOfMemoryError, OSError,
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
    _hosts(parts.netloc)


def _check_host(parts: SplitResult) -> None:
    try:
        _ = parts.port
    except ValueError:
        msg = "its port is no number up to 65535 (redis://host:port/db)"
        raise ValueError(msg) from None
    if not parts.hostname:
        msg = "the URL names no host (redis://host:port/db)"
        raise ValueError(msg)


def connect(
    url: str, *, connections: int = CONNECTIONS, answer_timeout: float | None = ANSWER_TIMEOUT
) -> Redis:
    """A client; it connects with the first command, and tries nothing twice behind the caller's back."""
    options: dict[str, Any] = {
        # Where they are on, as by default, redis-py takes a closed connection from its pool for a good one.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": answer_timeout,
        # Otherwise redis-py sends a command again that may have been carried out.
        "retry": Retry(NoBackoff(), 0),
    }
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        pool = BlockingConnectionPool.from_url(
            url, max_connections=connections, timeout=ANSWER_TIMEOUT, **options
        )
        return Redis.from_pool(pool)
    # redis-py has no types here.
    sentinel: Any = Sentinel(_hosts(parts.netloc), sentinel_kwargs=options)  # type: ignore[no-untyped-call]
    master: Redis = sentinel.master_for(
        parse_qs(parts.query)["master"][0],
        redis_class=Redis,
        db=int(parts.path.strip("/") or 0),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        **options,
    )
    return master


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
    urls = [f"sentinel://{secret}{host}:{port}{parts.path}" for host, port in _hosts(parts.netloc)]
    return ";".join(urls), {"master_name": parse_qs(parts.query)["master"][0]}


def _hosts(netloc: str) -> list[tuple[str, int]]:
    hosts = []
    for place in netloc.rpartition("@")[2].split(","):
        host, _, port = place.partition(":")
        if not host or not (port or "0").isdecimal():
            msg = "each Sentinel is host or host:port, where port is a number"
            raise ValueError(msg)
        hosts.append((host, int(port or SENTINEL_PORT)))
    return hosts
