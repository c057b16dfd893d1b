"""When a turn asks its provider again."""

import random

from turnpool.errors import TransientProviderError

# First and longest pause before a provider is asked again, seconds.
RETRY_FIRST, RETRY_LONGEST = 0.5, 15.0
# Of the time that is left: a pause ends early enough for one more answer to begin.
LAST_SHARE = 0.9
# Of the time that a provider asks to wait: all who were refused together come back spread over so much more.
HINT_SPREAD = 0.5
# Doublings after which the longest pause is reached, whatever the first is.
MAX_DOUBLINGS = 30


class Retries:
    """Counts the tries of one turn. Only a provider that answers, and wrongly, uses them up."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failures = 0
        self._refusals = 0

    def progressed(self) -> None:
        """The answer has got further: a long one may break off more often than a short one."""
        self._failures = self._refusals = 0

    def pause(self, error: TransientProviderError, left: float) -> float | None:
        """Seconds until the next try, None if there is none. `left`: seconds until the turn's deadline.

        Exponential with full jitter, after the time that the provider asks for.
        Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        if error.unavailable or error.retry_after is not None:
            self._refusals += 1
        else:
            self._failures += 1
            if self._failures > self._limit:
                return None
        number = min(self._failures + self._refusals, MAX_DOUBLINGS)
        hint = error.retry_after
        least = RETRY_FIRST if hint is None else hint
        spread = max(min(RETRY_FIRST * 2**number, RETRY_LONGEST), (hint or 0) * HINT_SPREAD)
        most = min(least + spread, least + (left - least) * LAST_SHARE)
        # Chance only spreads the load, it keeps no secret.
        return random.uniform(least, most) if most > least else None  # noqa: S311


def out_of_time(error: TransientProviderError, left: float) -> bool:
    """Whether the provider asks to wait for longer than the turn may."""
    return error.retry_after is not None and error.retry_after >= left
