"""Turns that kill their workers: they fail, and no other does (`lua/reap.lua`, `lua/release.lua`)."""

import random

import pytest

from tests.turnpool.scripts.kit import MakeTurn
from tests.turnpool.scripts.simulation import Kind, Simulation
from turnpool.store.store import Store

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SILENT, STREAMING = Kind(30), Kind(30, says=3)
AT_ONCE = Kind(0, kills=True)


def among(healthy: Kind, place: int, poisons: dict[str, Kind], count: int = 40) -> dict[str, Kind]:
    """So many healthy turns, the others before the one at this place."""
    names = [f"healthy-{n}" for n in range(count)]
    names[place:place] = poisons
    return {name: poisons.get(name, healthy) for name in names}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("healthy", "place"), [(SILENT, 0), (SILENT, 20), (SILENT, 40), (STREAMING, 20)])
async def test_a_poison_turn_fails_alone_within_a_minute(
    store: Store, new_turn: MakeTurn, workers: int, healthy: Kind, place: int
) -> None:
    """Forty turns beside one that ends its process at once: none of them fails, that one does in a minute."""
    simulation = Simulation(store, among(healthy, place, {"poison": AT_ONCE}), workers)
    await simulation.run(new_turn, 120)
    assert list(simulation.failed()) == ["poison"]
    assert simulation.failed()["poison"] < 45


@pytest.mark.parametrize(
    "poisons",
    [
        {"late": Kind(3, kills=True)},
        {"later": Kind(8, kills=True)},
        {"streaming": Kind(3, kills=True, says=0.5)},
        {"first": Kind(0, kills=True, priority=0)},
        {"one": AT_ONCE, "two": AT_ONCE},
        {"one": AT_ONCE, "late": Kind(5, kills=True)},
        {"streaming": Kind(1, kills=True, says=0.25), "late": Kind(3, kills=True, posted=30)},
    ],
    ids=" and ".join,
)
async def test_whatever_kills_workers_fails_alone(
    store: Store, new_turn: MakeTurn, poisons: dict[str, Kind]
) -> None:
    """Poison turns that take their time, stream the same text each time, are first in line, or are two."""
    simulation = Simulation(store, among(SILENT, 20, poisons), 1)
    await simulation.run(new_turn, 300)
    assert set(simulation.failed()) == set(poisons)


async def test_a_poison_turn_is_found_among_two_hundred(store: Store, new_turn: MakeTurn) -> None:
    """A worker with all slots in use: few losses find the one turn."""
    simulation = Simulation(store, among(SILENT, 100, {"poison": AT_ONCE}, 199), 1)
    await simulation.run(new_turn, 120)
    assert list(simulation.failed()) == ["poison"]
    assert simulation.crashes["poison.1"] <= 7


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_poison_turn_alone_fails_at_its_third_loss(
    store: Store, new_turn: MakeTurn, workers: int
) -> None:
    """With nothing beside it there is nothing to find out."""
    simulation = Simulation(store, {"poison": AT_ONCE}, workers)
    await simulation.run(new_turn, 60)
    assert simulation.crashes == {"poison.1": 3}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(4))
async def test_no_healthy_turn_fails_among_any_poison_turns(
    store: Store, new_turn: MakeTurn, seed: int
) -> None:
    """Some of each, posted at any time, on up to three workers."""
    chance = random.Random(seed)  # noqa: S311 - the same seed, the same turns
    kinds = {
        f"healthy-{n}": Kind(
            chance.choice([5, 15, 30]), says=chance.choice([0, 0, 0, 1]), posted=chance.choice([0, 0, 20, 45])
        )
        for n in range(chance.randint(5, 40))
    }
    for n in range(chance.randint(1, 3)):
        seconds, says = chance.choice([0, 0, 1, 3, 6]), chance.choice([0, 0, 0.5])
        kinds[f"poison-{n}"] = Kind(seconds, kills=True, says=says, posted=chance.choice([0, 10, 30]))
    names = list(kinds)
    chance.shuffle(names)
    simulation = Simulation(store, {name: kinds[name] for name in names}, chance.randint(1, 3))
    await simulation.run(new_turn, 590)
    assert set(simulation.failed()) == {name for name in names if name.startswith("poison")}
