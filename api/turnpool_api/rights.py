"""Whether the servers still grant what turnpool needs: turns that no worker may take would wait for ever."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

from redis.asyncio import Redis

from turnpool.errors import StoreAwayError
from turnpool.redis.access import Refusal, Role, broker_commands, find_refusal
from turnpool.redis.errors import DRIVER_ERRORS
from turnpool.redis.nodes import Nodes
from turnpool.settings import Settings
from turnpool.store.startup import find_store_refusal

# Seconds a server gets to say. Whether it answers at all is another question.
ANSWER_SECONDS = 0.4


class Rights:
    """Looks for rights that were taken away.

    Those that workers need on the broker count if this process has had them too, as where all share one user.
    """

    def __init__(self, settings: Settings, nodes: Nodes, broker: Redis) -> None:
        self._settings = settings
        self._nodes = nodes
        self._broker = broker
        self._as_workers: bool | None = None

    async def find_refusal(self) -> Refusal | None:
        """The first command that is refused; None if there is none, or nobody to ask."""
        found = await asyncio.gather(self._within(self._of_store()), self._within(self._of_broker()))
        return next((refusal for refusal in found if refusal), None)

    async def _within(self, look: Awaitable[Refusal | None]) -> Refusal | None:
        with suppress(StoreAwayError, *DRIVER_ERRORS):
            async with asyncio.timeout(ANSWER_SECONDS):
                return await look
        return None

    async def _of_store(self) -> Refusal | None:
        return await find_store_refusal(self._nodes, self._settings, Role.API)

    async def _of_broker(self) -> Refusal | None:
        refusal = await find_refusal(self._broker, broker_commands(self._settings, Role.API))
        if refusal or self._as_workers is False:
            return refusal
        refusal = await find_refusal(self._broker, broker_commands(self._settings, Role.WORKER))
        if self._as_workers is None:
            self._as_workers = refusal is None
            return None
        return refusal
