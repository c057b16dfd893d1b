"""A server that refuses to publish: an ACL without channels, put right later. What is written stands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import ResponseError

from tests.turnpool.scripts.kit import MakeTurn, completed, events, record, take
from turnpool.events import delta
from turnpool.states import Status
from turnpool.store import Store

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def no_channels(store: Store) -> AsyncIterator[None]:
    """Nobody may publish meanwhile."""
    await store.redis.execute_command("ACL", "SETUSER", "default", "resetchannels")
    try:
        yield
    finally:
        await store.redis.execute_command("ACL", "SETUSER", "default", "allchannels")


async def test_events_that_nobody_was_told_of_are_counted(store: Store, new_turn: MakeTurn) -> None:
    """The log and the turn agree, so that the same events come once, and others after them."""
    await store.submit(new_turn())
    held = await take(store)
    async with no_channels(store):
        # Tried again by itself, which finds it counted.
        assert await store.append([(held, [delta("a")])]) == [True]
    assert await store.append([(held, [delta("a"), delta("b")])]) == [True]
    await store.settle(held._replace(seq=held.seq + 2), [], completed("ab"))
    assert [event.get("text") for event in await events(store, "s.1")] == [None, None, "a", "b", None]
    assert (await record(store, "s.1")).seq == 5


async def test_a_claim_that_nobody_was_told_of_is_taken_over(store: Store, new_turn: MakeTurn) -> None:
    """The turn has its lease, so another worker gets it once that runs out."""
    await store.submit(new_turn())
    async with no_channels(store):
        with pytest.raises(ResponseError):
            await store.claim("turns", "w1")
    assert await store.redis.zcard(f"{store.prefix}leases:turns") == 1
    turn = await record(store, "s.1")
    assert (turn.status, turn.attempt, turn.seq) == (Status.IN_PROGRESS, 1, 2)
