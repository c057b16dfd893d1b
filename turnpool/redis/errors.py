"""Errors of redis-py that mean one thing to everybody else: the store is away for now."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import (
    AskError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from turnpool.errors import StoreAwayError

# A missing right passes as well: an operator who takes it away by mistake gives it back.
AWAY = (
    RedisConnectionError, RedisTimeoutError, ReadOnlyError, ClusterDownError, AskError, TryAgainError,
    OutOfMemoryError, NoPermissionError, OSError,
)  # fmt: skip
# The same, of answers that redis-py has no class for.
AWAY_ANSWERS = ("BUSY ", "MISCONF", "NOREPLICAS", "UNKILLABLE", "ACL failure in script")
# Whatever a call of redis-py can raise for its server's sake.
DRIVER_ERRORS = (RedisError, OSError)


def is_away(error: BaseException) -> bool:
    """Whether a server is away for now, by redis-py's error: it restarts, fails over, is full, refuses."""
    return isinstance(error, AWAY) or (
        isinstance(error, ResponseError) and str(error).startswith(AWAY_ANSWERS)
    )


def translated(error: Exception) -> Exception:
    """StoreAwayError in place of redis-py's errors that mean it; any other error as it is."""
    if not is_away(error):
        return error
    away = StoreAwayError(str(error) or type(error).__name__)
    away.__cause__ = error
    return away


@contextmanager
def translating() -> Iterator[None]:
    """Raise StoreAwayError for what redis-py raises when its server is away."""
    try:
        yield
    except DRIVER_ERRORS as error:
        # `from None` would hide the cause that `translated` has set.
        raise translated(error)  # noqa: B904
