"""Celery's pool on asyncio, with a service of the test's."""

import asyncio
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from turnpool_workers.celery.pool import AsyncioPool


class FakeService:
    """Serves a wake-up until the test lets it end."""

    def __init__(self) -> None:
        self.threads: dict[str, int] = {}
        self.hurried = threading.Event()
        self.served: list[str] = []
        self.begun = threading.Semaphore(0)

    async def start(self) -> None:
        """As the real one."""
        self.loop = asyncio.get_running_loop()
        self.may_end = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.threads["start"] = threading.get_ident()

    async def serve(self, queue: str) -> str:
        """Wait until it may end."""
        self.threads["serve"] = threading.get_ident()
        self.begun.release()
        await self.may_end.wait()
        if queue == "bad":
            msg = "a mistake"
            raise ValueError(msg)
        self.served.append(queue)
        return f"served {queue}"

    async def drain(self) -> None:
        """Let all end, and wait for permission."""
        self.threads["drain"] = threading.get_ident()
        self.may_end.set()
        await self.may_close.wait()

    def hurry(self) -> None:
        """Close now."""
        self.hurried.set()
        self.loop.call_soon_threadsafe(self.may_close.set)

    def info(self) -> dict[str, Any]:
        """What Flower shows."""
        return {"slots": 3}

    def let_end(self) -> None:
        """Let what is served end."""
        self.loop.call_soon_threadsafe(self.may_end.set)


class Hub:
    """As much of kombu's event loop as the pool uses."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}

    def add_reader(self, end: int, callback: Callable[[], None]) -> None:
        """Call back when there is something to read."""
        self.readers[end] = callback

    def turn(self, seconds: float = 10) -> None:
        """Wait for something to read, and call back."""
        ready, _, _ = select.select(list(self.readers), [], [], seconds)
        assert ready, "the hub was not woken"
        for end in ready:
            self.readers[end]()


class Request:
    """A Celery request, told of what becomes of it."""

    def __init__(self) -> None:
        self.acknowledged = False
        self.accepted: list[bool] = []
        self.results: list[Any] = []
        self.threads: set[int] = set()
        self.on_result: Callable[[], object] = lambda: None

    def accept(self, _pid: int, _time: float) -> None:
        """Celery is told that the wake-up is taken."""
        self.accepted.append(self.acknowledged)

    def end(self, result: Any) -> None:
        """Celery is told that the wake-up has ended."""
        self.threads.add(threading.get_ident())
        self.results.append(result)
        self.on_result()


class Pool:
    """A pool with its service and hub."""

    def __init__(self) -> None:
        self.service = FakeService()
        kind = type("TestPool", (AsyncioPool,), {"service": self.service})
        self.pool = kind(limit=3)
        self.pool.start()
        self.hub = Hub()
        self.pool.register_with_event_loop(self.hub)

    def apply(self, queue: str) -> Request:
        """A wake-up comes."""
        request = Request()
        message = ("turnpool.wake_up", "id", {"delivery_info": {"routing_key": f"turnpool:{queue}"}})
        self.pool.on_apply(None, message, {}, callback=request.end, accept_callback=request.accept)
        assert self.service.begun.acquire(timeout=10)
        return request


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool that is stopped after the test."""
    pool = Pool()
    yield pool
    if pool.pool._thread.is_alive():
        pool.pool.on_stop()


def turn_until(pool: Pool, requests: list[Request]) -> None:
    """Turn the hub until these have ended."""
    while not all(request.results for request in requests):
        pool.hub.turn()


def test_an_error_of_celery_s_own_holds_up_no_other_callback(pool: Pool) -> None:
    """Those behind it are called in the next turn of the hub, and those that come after it."""

    def broken() -> None:
        raise RuntimeError

    first, *others = [pool.apply("turns") for _ in range(3)]
    first.on_result = broken
    pool.service.let_end()
    with pytest.raises(RuntimeError):
        turn_until(pool, [first])
    turn_until(pool, others)
    last = pool.apply("turns")
    turn_until(pool, [last])


def test_wake_ups_are_served_at_once_on_the_loop_s_thread(pool: Pool) -> None:
    """All that come are served side by side, acknowledged first, and none holds up the main thread."""
    requests = [pool.apply("turns") for _ in range(3)]
    assert [request.accepted for request in requests] == [[True]] * 3
    assert pool.service.threads["serve"] == pool.service.threads["start"] != threading.get_ident()
    assert [request.results for request in requests] == [[], [], []]


def test_callbacks_run_on_the_hub_s_thread(pool: Pool) -> None:
    """Celery hears of an end on the main thread, where its connections belong."""
    requests = [pool.apply("turns") for _ in range(3)]
    pool.service.let_end()
    while not all(request.results for request in requests):
        pool.hub.turn()
    for request in requests:
        ((failed, result, runtime),) = request.results
        assert (failed, result) == (False, "served turns")
        assert runtime >= 0
        assert request.threads == {threading.get_ident()}


def test_an_error_of_the_service_is_an_end_too(pool: Pool) -> None:
    """The slot is free again, and the result points to the log."""
    request = pool.apply("bad")
    pool.service.let_end()
    pool.hub.turn()
    assert request.results[0][:2] == (False, "failed; see the worker's log")


def test_a_reconnection_registers_again(pool: Pool) -> None:
    """After the broker was away the new hub is woken as well."""
    hub = Hub()
    pool.pool.register_with_event_loop(hub)
    request = pool.apply("turns")
    pool.service.let_end()
    hub.turn()
    assert request.results


def test_a_stop_drains_and_delivers_the_callbacks(pool: Pool) -> None:
    """The hub stands still while the pool stops, and yet every end is told, on the main thread."""
    requests = [pool.apply("turns") for _ in range(3)]
    pool.pool.on_stop()
    assert [len(request.results) for request in requests] == [1, 1, 1]
    assert {thread for request in requests for thread in request.threads} == {threading.get_ident()}
    assert pool.service.threads["drain"] == pool.service.threads["serve"]
    assert not pool.pool._thread.is_alive()
    assert not pool.service.hurried.is_set()


def test_a_second_stop_hurries(pool: Pool) -> None:
    """A second signal, which comes while the first stop waits, cuts the drain short and returns at once."""
    pool.service.loop.call_soon_threadsafe(pool.service.may_close.clear)
    request = pool.apply("turns")
    request.on_result = pool.pool.on_stop
    pool.pool.on_stop()
    assert pool.service.hurried.is_set()
    assert not pool.pool._thread.is_alive()


def test_a_start_that_fails_is_told() -> None:
    """A service that can't start stops Celery's start."""

    class Broken(FakeService):
        async def start(self) -> None:
            msg = "no port"
            raise OSError(msg)

    kind = type("TestPool", (AsyncioPool,), {"service": Broken()})
    broken = kind(limit=1)
    with pytest.raises(OSError, match="no port"):
        broken.on_start()
    assert not broken._thread.is_alive()


def test_flower_is_told_of_the_slots(pool: Pool) -> None:
    """What the service says of itself is on the pool's page."""
    assert pool.pool.info["slots"] == 3


def test_celery_s_cold_shutdown_is_harmless(pool: Pool) -> None:
    """It asks to terminate jobs, which are turns and end otherwise."""
    request = pool.apply("turns")
    pool.pool.terminate_job(1, 9)
    assert request.results == []
