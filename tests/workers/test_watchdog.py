"""Who notices that a worker's loop stands still; with processes: acceptance/test_hang.py."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator

import pytest

from tests.conftest import wait_until
from tests.workers.conftest import Worker
from turnpool.agent import Event, Turn
from turnpool.redis.connections import connect
from turnpool.settings import Settings
from turnpool.store.store import Store
from turnpool.store.wakeups import WakeUps
from turnpool_workers.health import Health
from turnpool_workers.watchdog import Watchdog, find_culprit

pytestmark = pytest.mark.anyio


async def idle(_: Turn) -> AsyncIterator[str | Event]:
    """Say nothing."""
    await asyncio.Event().wait()
    yield ""


@pytest.fixture
async def wakeups(settings: Settings) -> AsyncIterator[WakeUps]:
    """Wake-ups on the test's server."""
    wakeups = WakeUps(connect(settings.broker), settings.namespace)
    yield wakeups
    await wakeups.close()


def stalled_health(hang_seconds: float) -> Health:
    """Of a loop that beat once."""
    health, loop = Health(60, hang_seconds), asyncio.new_event_loop()
    health.start(loop)
    loop.close()
    return health


async def look_until(watchdog: Watchdog, store: Store, wakeups: WakeUps, health: Health) -> None:
    """Look as often as the keeper does, until the hang is noticed."""

    async def noticed() -> bool:
        await watchdog.look(store, wakeups)
        return health.hung

    await wait_until(noticed)


async def test_without_a_culprit_all_leases_run_out(worker: Worker, store: Store, wakeups: WakeUps) -> None:
    """Nothing on the stack says whose code it is, so the losses have to show it; nothing is handed back."""
    runner = await worker.runner(idle)
    health, ended = stalled_health(3), list[int]()
    watchdog = Watchdog(health, lambda: [runner], ended.append)
    await look_until(watchdog, store, wakeups, health)
    assert watchdog.withholds(runner)
    assert not ended
    assert (await store.turn("s.1", "default")).status == "in_progress"


async def test_a_worker_that_is_to_drain_ends_at_once(store: Store, wakeups: WakeUps) -> None:
    """Nobody waits for a loop that will not drain."""
    health, ended = stalled_health(3), list[int]()
    health.draining = True
    await look_until(Watchdog(health, list, ended.append), store, wakeups, health)
    assert ended == [1]


async def test_a_loop_that_runs_again_is_forgiven(worker: Worker, store: Store, wakeups: WakeUps) -> None:
    """Its leases are renewed again, and it offers slots."""
    runner = await worker.runner(idle)
    health = stalled_health(3)
    watchdog = Watchdog(health, lambda: [runner], lambda _: None)
    await look_until(watchdog, store, wakeups, health)
    health.start(asyncio.get_running_loop())
    await watchdog.look(store, wakeups)
    assert (health.hung, watchdog.withholds(runner)) == (False, False)


async def test_a_process_that_stood_still_as_a_whole_does_not_hang(store: Store, wakeups: WakeUps) -> None:
    """After SIGSTOP, or on a machine that was suspended, the watchdog was as late as the loop."""
    health, ended = stalled_health(3), list[int]()
    watchdog = Watchdog(health, list, ended.append)
    watchdog._looked_at -= 60
    assert health._beat_at
    health._beat_at -= 60
    await watchdog.look(store, wakeups)
    assert (health.hung, ended) == (False, [])


@pytest.mark.parametrize("in_step", [False, True])
async def test_the_culprit_is_found_on_the_stack(worker: Worker, *, in_step: bool) -> None:
    """By its turn, also in a step, which is a task of its own; among several attempts."""
    other = await worker.runner(idle, session_id="other")
    go, blocked = threading.Event(), threading.Event()

    async def block() -> None:
        blocked.set()
        go.wait(10)

    async def agent(turn: Turn) -> AsyncIterator[str | Event]:
        await (turn.step("block", block) if in_step else block())
        yield "done"

    runner = await worker.runner(agent, session_id="culprit")
    found = []

    def find(thread: int) -> None:
        blocked.wait(10)
        found.append(find_culprit(sys._current_frames()[thread], [other, runner]))
        go.set()

    finder = threading.Thread(target=find, args=(threading.get_ident(),))
    finder.start()
    await runner.run()
    finder.join()
    assert found == [runner]
