"""What waits for one stream."""

import asyncio

import pytest
import uvloop

from turnpool_api.streams.budget import LEAST_SHARE, MAX_SHARE, PART, Budget
from turnpool_api.streams.subscription import EVENT_OVERHEAD, Subscription


def test_many_waits_end_in_time() -> None:
    """Each at its own, however near that is, and whatever came in the one before."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        subscription = Subscription(lambda _: None, is_confirmed=False)
        for before, seconds in ((0.0004, 0.0004), (0.0004, 0.05), (60, 0.02), (0.0004, 0), (60, 0)):
            loop.call_soon(subscription.push, 1, b"a")
            assert await subscription.take(loop.time() + before) == [(1, b"a")]
            until = loop.time() + seconds
            assert await asyncio.wait_for(subscription.take(until), 5) == []
            assert loop.time() >= until
        subscription.leave()

    uvloop.run(run())


async def waiting(budget: Budget, size: int) -> Subscription:
    """A stream for which an event of this size waits."""
    subscription = Subscription(lambda _: None, budget, is_confirmed=True)
    subscription.push(1, b"x" * size)
    return subscription


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 5_000, 100_000, 300_000])
async def test_many_slow_streams_hold_no_more_than_the_budget(size: int) -> None:
    """Whatever the size of their events, beyond the budget each has the least share."""
    budget = Budget(4_000_000)
    streams = [await waiting(budget, size) for _ in range(1000)]
    for _ in range(20):
        for subscription in streams:
            subscription.push(1, b"x" * size)
    assert budget.held <= 4_000_000 + 1000 * (LEAST_SHARE + EVENT_OVERHEAD)
    for subscription in streams:
        subscription.leave()
    assert budget.held == 0


@pytest.mark.anyio
async def test_a_lone_slow_stream_has_the_largest_share() -> None:
    """It falls behind only then, and holds nothing any more."""
    budget = Budget()
    subscription = await waiting(budget, 1000)
    while not subscription.behind:
        most = budget.held
        subscription.push(1, b"x" * 1000)
    assert MAX_SHARE - 2000 < most <= MAX_SHARE
    assert budget.held == 0


@pytest.mark.anyio
async def test_what_is_taken_counts_until_more_is_wanted() -> None:
    """A piece is held while it is sent; then the next one takes its place."""
    budget = Budget()
    subscription = await waiting(budget, 5_000)
    held = budget.held
    assert len(await subscription.take(0)) == 1
    assert budget.held == held
    share = subscription.reserve()
    assert budget.held == share
    subscription.hold(700)
    assert budget.held == 700
    subscription.push(1, b"x" * 100)
    subscription.skip_waiting()
    assert budget.held == 700
    assert await subscription.take(0) == []
    assert budget.held == 0


@pytest.mark.anyio
async def test_those_who_read_their_logs_at_once_share_the_budget() -> None:
    """Each page is reserved before it is read, so that a thousand at once are no more than what is there."""
    budget = Budget(4_000_000)
    streams = [Subscription(lambda _: None, budget, is_confirmed=True) for _ in range(1000)]
    shares = [subscription.reserve() for subscription in streams]
    assert shares[0] == min(MAX_SHARE, 4_000_000 // PART)
    assert shares[-1] == LEAST_SHARE
    assert budget.held == sum(shares) <= 4_000_000 + 1000 * LEAST_SHARE
