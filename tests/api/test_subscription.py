"""What waits for one stream."""

import asyncio

import uvloop

from api.subscription import Subscription


def test_many_waits_end_in_time() -> None:
    """Each at its own, however near that is, and whatever came in the one before."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        subscription = Subscription(lambda _: None, in_force=False)
        for before, seconds in ((0.0004, 0.0004), (0.0004, 0.05), (60, 0.02), (0.0004, 0), (60, 0)):
            loop.call_soon(subscription.push, 1, b"a")
            assert await subscription.take(loop.time() + before) == [(1, b"a")]
            until = loop.time() + seconds
            assert await asyncio.wait_for(subscription.take(until), 5) == []
            assert loop.time() >= until
        subscription.leave()

    uvloop.run(run())
