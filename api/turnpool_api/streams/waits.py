"""Calls that wait for a turn's end: on SIGTERM they go on for TURNPOOL_API_DRAIN_SECONDS, unlike streams."""

import asyncio

from turnpool_api.streams.subscription import Subscription


class Waits:
    """The subscriptions of calls that wait. Belongs to one event loop."""

    def __init__(self) -> None:
        self.subscriptions: set[Subscription] = set()
        self._none = asyncio.Event()
        self._none.set()

    def add(self, subscription: Subscription) -> None:
        """Count a call that waits from now on."""
        self.subscriptions.add(subscription)
        self._none.clear()

    def remove(self, subscription: Subscription) -> None:
        """Count it no more."""
        self.subscriptions.discard(subscription)
        if not self.subscriptions:
            self._none.set()

    async def ended(self) -> None:
        """Wait until no call waits."""
        await self._none.wait()
