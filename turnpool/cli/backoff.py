"""Waiting between tries."""

import asyncio
import random
import time

FIRST_SECONDS = 0.1  # a restarted process is back in a second or so
MAX_SECONDS = 3.0  # a person is waiting
GIVE_UP_SECONDS = 60.0  # longer than a deploy or a restart of Redis takes


class Backoff:
    """Waits twice as long each time, with jitter, and says when to give up."""

    def __init__(self, give_up_seconds: float = GIVE_UP_SECONDS) -> None:
        self._give_up_seconds = give_up_seconds
        self.reset()

    def reset(self) -> None:
        """Begin anew after a success."""
        self._delay = FIRST_SECONDS
        self._since: float | None = None

    @property
    def fresh(self) -> bool:
        """Whether nothing has failed since the last success."""
        return self._since is None

    @property
    def exhausted(self) -> bool:
        """Whether there has been no success for too long."""
        return self._since is not None and time.monotonic() - self._since > self._give_up_seconds

    async def wait(self, at_least: float = 0.0) -> None:
        """Sleep before the next try."""
        self._since = self._since or time.monotonic()
        jittered = self._delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients, no secret
        self._delay = min(self._delay * 2, MAX_SECONDS)
        await asyncio.sleep(max(at_least, jittered))
