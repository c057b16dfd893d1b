"""The keeper's thread: leases, dead workers, deadlines, lost wake-ups."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import wait_until
from tests.turnpool.scripts.kit import (
    MakeTurn,
    end_lease,
    lose,
    pass_deadline,
    record,
    take,
    worker_info,
)
from turnpool import keys
from turnpool.redis.connections import connect
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store.store import Held as StoreHeld
from turnpool.store.store import Store
from turnpool.store.wakeups import WakeUps
from turnpool_workers.keeper import Held, Keeper

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

StartKeeper = Callable[..., Keeper]


class Told:
    """What a keeper's worker runs, and what it was told to stop."""

    def __init__(self) -> None:
        self.held: Held = []
        self.stopped: list[dict[str, str]] = []
        self.threads: set[int] = set()

    def on_stop(self, stop: dict[str, str]) -> None:
        """As the service's."""
        self.threads.add(threading.get_ident())
        self.stopped.append(stop)


@pytest.fixture
def told() -> Told:
    """What the worker says and hears."""
    return Told()


@pytest.fixture
def start(settings: Settings, told: Told) -> Iterator[StartKeeper]:
    """Starts keepers, which are closed after the test."""
    keepers: list[Keeper] = []

    def start(**changes: object) -> Keeper:
        changed = settings.model_copy(update=changes)
        keeper = Keeper(changed, lambda: (worker_info("w1"), told.held), told.on_stop)
        keeper.start()
        keepers.append(keeper)
        return keeper

    yield start
    for keeper in keepers:
        keeper.close()


async def wakeups(store: Store) -> int:
    """Wake-ups in the broker's list."""
    return int(await store.redis.llen("turnpool:turns"))


async def test_the_worker_is_told_what_to_stop(
    store: Store, start: StartKeeper, told: Told, new_turn: MakeTurn
) -> None:
    """Lost and cancelled turns are named at the next renewal, on the keeper's own thread."""
    for session in ("lost", "cancelled", "fine"):
        await store.submit(new_turn(session))
        told.held.append(((await take(store)).turn_id, 1))
    await lose(store, await _held(store, "lost.1"))
    await store.cancel("cancelled.1", "default")
    start()

    async def heard() -> bool:
        return bool(told.stopped)

    await wait_until(heard)
    assert told.stopped[0] == {"default:lost.1/1": "lost", "default:cancelled.1/1": "cancelled"}
    assert threading.get_ident() not in told.threads


async def test_dead_workers_turns_and_late_turns_wake_others(
    store: Store, start: StartKeeper, new_turn: MakeTurn
) -> None:
    """A lease that ran out and a deadline that passed are found; what is ready now wakes someone."""
    await store.submit(new_turn("dead"))
    await take(store, "w2")
    await store.submit(new_turn("late"))
    await store.submit(new_turn("late"))
    await pass_deadline(store, "late.1")
    await end_lease(store, "dead.1")
    start()

    async def woken() -> bool:
        return await wakeups(store) >= 2

    await wait_until(woken)
    assert (await record(store, "dead.1")).losses == 1
    assert (await record(store, "late.1")).status is Status.FAILED


async def test_lost_wake_ups_are_made_up_for(store: Store, start: StartKeeper, new_turn: MakeTurn) -> None:
    """Turns that nobody was woken for get their wake-ups within some seconds, and no more than that."""
    for session in ("a", "b", "c"):
        await store.submit(new_turn(session))
    start()

    async def made_up() -> bool:
        return await wakeups(store) == 3

    await wait_until(made_up)
    looked = int(await store.redis.hget(keys.missing(store.prefix, "turns"), "at"))

    async def looked_twice_more() -> bool:
        return int(await store.redis.hget(keys.missing(store.prefix, "turns"), "at")) > looked + 1900

    await wait_until(looked_twice_more)
    assert await wakeups(store) == 3


async def test_a_broker_that_is_away_costs_no_lease(
    store: Store, start: StartKeeper, told: Told, new_turn: MakeTurn
) -> None:
    """Leases are kept while wake-ups can't be counted."""
    await store.submit(new_turn())
    await take(store)
    told.held.append(("default:s.1", 1))
    start(broker_url="redis://127.0.0.1:1/0")
    lease = keys.leases(store.prefix, "turns")
    first = await store.redis.zscore(lease, "default:s.1")

    async def renewed() -> bool:
        return bool(await store.redis.zscore(lease, "default:s.1") > first + 1000)

    await wait_until(renewed)
    assert told.stopped == []


async def test_it_goes_on_when_redis_comes_back(
    store: Store, start: StartKeeper, told: Told, new_turn: MakeTurn
) -> None:
    """Connections that break are made again, and nothing is lost by it."""
    await store.submit(new_turn())
    await take(store)
    told.held.append(("default:s.1", 1))
    start()
    lease = keys.leases(store.prefix, "turns")
    for _ in range(5):
        for client in await store.redis.client_list():
            if client["cmd"] in {"evalsha", "llen"}:
                await store.redis.client_kill_filter(_id=client["id"])
        before = await store.redis.zscore(lease, "default:s.1")

        async def renewed(before: float = before) -> bool:
            return bool(await store.redis.zscore(lease, "default:s.1") > before)

        await wait_until(renewed)
    assert told.stopped == []


async def test_it_takes_its_worker_off_the_list_at_the_end(store: Store, start: StartKeeper) -> None:
    """A worker that ends is gone at once, not after three leases."""
    keeper = start()

    async def listed() -> bool:
        return [worker.id for worker in await store.workers()] == ["w1"]

    await wait_until(listed)
    keeper.close()
    assert await store.workers() == []


async def _held(store: Store, turn_id: str) -> StoreHeld:
    turn = await record(store, turn_id)
    return StoreHeld(turn.scoped_id, turn.attempt, turn.seq)


async def test_it_ends_whatever_it_is_doing(settings: Settings, store: Store, told: Told) -> None:
    """A worker that is told to end ends, at whatever moment of the keeper's work that comes."""
    for n in range(60):
        keeper = Keeper(settings, lambda: (worker_info(), told.held), told.on_stop)
        keeper.start()
        # Moments a little apart, some in the midst of a command.
        await asyncio.sleep(n % 10 * 0.004)
        await asyncio.wait_for(asyncio.to_thread(keeper.close), 10)
    assert await store.workers() == []


async def test_all_turns_of_a_dead_worker_are_taken_at_one_look(
    settings: Settings, store: Store, told: Told, new_turn: MakeTurn
) -> None:
    """However many they are: a second look would be half a second later."""
    for n in range(205):
        await store.submit(new_turn(f"s{n}"))
        await take(store)
        await end_lease(store, f"s{n}.1")
    wakeups = WakeUps(connect(settings.broker), settings.namespace)
    await Keeper(settings, lambda: (worker_info("w1"), told.held), told.on_stop)._look(store, wakeups)
    assert await store.redis.zcard(keys.queued(store.prefix, "turns")) == 205
    await wakeups.close()
