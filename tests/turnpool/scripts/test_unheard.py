"""A server that refuses to publish, as one whose ACL gives no channels."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.turnpool.scripts.kit import MakeTurn, completed, contents, record, say, take
from turnpool.events import seq_of
from turnpool.states import Status
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def no_channels(store: Store) -> AsyncIterator[None]:
    """Nobody may publish meanwhile."""
    await store.redis.execute_command("ACL", "SETUSER", "default", "resetchannels")
    try:
        yield
    finally:
        await store.redis.execute_command("ACL", "SETUSER", "default", "allchannels")


async def test_a_turn_that_nobody_is_told_of_runs_as_any_other(store: Store, new_turn: MakeTurn) -> None:
    """It ends, its session has its messages, and the next turn of the session is ready."""
    async with no_channels(store):
        await store.submit(new_turn())
        await store.submit(new_turn())
        held = await say(store, await take(store), "a", "b")
        await store.settle(held, [], completed("ab"))
        assert (await take(store)).turn_id == "default:s.2"
    assert [seq_of(frame) for frame in await store.frames("s.1", "default", 0)] == [1, 2, 3, 4, 5]
    turn = await record(store, "s.1")
    assert (turn.status, turn.seq) == (Status.COMPLETED, 5)
    assert len(await contents(store, "s")) == 2
