"""Waiting until a turn is safe, on a cluster."""

import asyncio

import pytest
from redis.exceptions import MovedError

from tests.conftest import wait_until
from tests.turnpool.scripts.kit import MakeTurn
from turnpool.errors import StoreAwayError
from turnpool.redis.cluster import Cluster
from turnpool.settings import Durability, Settings
from turnpool.store.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Turns are to be on a replica."""
    return settings.model_copy(update={"durability": Durability.REPLICA})


async def test_a_confirmation_that_meets_a_slot_elsewhere_has_the_slots_looked_up(
    store: Store, new_turn: MakeTurn
) -> None:
    """The round's mark may be safe all the same: then only that turn is not confirmed, and soon it is."""
    nodes = store.nodes
    assert isinstance(nodes, Cluster)
    for n in range(20):
        await store.submit(new_turn(f"s{n}"))
    home, *others = (store.prefix_of(f"default:s{n}") for n in range(20))
    here = nodes.node_of(home)
    n, away = next((n, prefix) for n, prefix in enumerate(others, 1) if nodes.node_of(prefix) is not here)
    nodes._owners[away] = nodes._owners[home]
    kept, refused = await asyncio.gather(
        store.confirm("default:s0.1"), store.confirm(f"default:s{n}.1"), return_exceptions=True
    )
    assert kept is True
    assert isinstance(refused, StoreAwayError)
    assert isinstance(refused.__cause__, MovedError)

    async def found() -> bool:
        return nodes.node_of(away) is not here

    await wait_until(found)
    assert await store.confirm(f"default:s{n}.1")
