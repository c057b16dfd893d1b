"""Connections to Redis or Valkey, standalone or by Sentinel.

URLs: `redis://[:password@]host:port/db`, `rediss://…` (TLS), `unix://…`, and for Sentinel
`sentinel://[:password@]host:port[,host:port …]/db?master=NAME`.
"""

from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

# Seconds. A server that does not answer for so long is away; the caller says so or tries again.
CONNECT_TIMEOUT = 2.0
ANSWER_TIMEOUT = 5.0
# Connections of one process; more callers wait for a free one. Pipelines make a few enough.
CONNECTIONS = 16
SENTINEL_PORT = 26379
SCHEMES = ("redis", "rediss", "unix", "sentinel")

AWAY = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OSError)
"""Errors that mean: Redis is away for now."""


def is_away(error: BaseException) -> bool:
    """Whether the error means that Redis is away for now (restarting, loading, failing over)."""
    return isinstance(error, AWAY) or (
        isinstance(error, ResponseError) and str(error).startswith(("LOADING", "MASTERDOWN", "UNKILLABLE"))
    )


def check_url(url: str) -> str:
    """The URL itself. Raises ValueError if it is none of those above."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        msg = f"{parts.scheme or url!r} is not one of {', '.join(SCHEMES)} (redis://host:port/db)"
        raise ValueError(msg)
    if parts.scheme == "sentinel" and not parse_qs(parts.query).get("master"):
        msg = "a sentinel URL needs its master's name: sentinel://host:port/0?master=NAME"
        raise ValueError(msg)
    if parts.scheme in ("redis", "rediss"):
        _ = parts.port  # ValueError where it is no number
        if not parts.hostname:
            msg = "the URL names no host (redis://host:port/db)"
            raise ValueError(msg)
    return url


def connect(
    url: str, *, connections: int = CONNECTIONS, answer_timeout: float | None = ANSWER_TIMEOUT
) -> Redis:
    """A client; it connects with the first command, and tries nothing twice behind the caller's back."""
    # Without this redis-py sends a command again that may have been carried out.
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": answer_timeout,
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
        password=parts.password,
        **options,
    )
    return master


def broker(url: str) -> tuple[str, dict[str, Any]]:
    """Celery's broker URL and transport options for one of our URLs."""
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        return url.replace("unix://", "redis+socket://", 1), {}
    secret = f":{parts.password}@" if parts.password else ""
    urls = [f"sentinel://{secret}{host}:{port}{parts.path}" for host, port in _hosts(parts.netloc)]
    return ";".join(urls), {"master_name": parse_qs(parts.query)["master"][0]}


def _hosts(netloc: str) -> list[tuple[str, int]]:
    hosts = []
    for place in netloc.rpartition("@")[2].split(","):
        host, _, port = place.partition(":")
        hosts.append((host, int(port or SENTINEL_PORT)))
    return hosts
