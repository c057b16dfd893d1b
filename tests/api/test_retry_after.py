"""When refused clients are told to ask again."""

import pytest

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.worker import claim
from tests.conftest import wait_until
from turnpool.errors import NotDurableError, QueueFullError, SessionFullError
from turnpool.models import QueueFlow
from turnpool.store.store import Store
from turnpool_api.app import stop_streams
from turnpool_api.http.errors import DrainingError, TurnUnfinishedError
from turnpool_api.http.retry_after import LEAST, MOST, NOTICED, SHORT, UNMEASURED, RetryAfter

pytestmark = pytest.mark.anyio

FULL = QueueFullError("turns")
SESSION_FULL = SessionFullError("s", "turns")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of `after`."""
    return Clock()


@pytest.fixture
def after(clock: Clock) -> RetryAfter:
    """What a process tells, by the test's clock."""
    return RetryAfter(clock)


def pass_time(after: RetryAfter, clock: Clock, *, seconds: float, rate: float, running: int = 0) -> None:
    """A full queue that turns leave at this rate, looked at each second."""
    began = clock.now
    after.observe("turns", QueueFlow(100, running, 0))
    while clock.now < began + seconds:
        clock.now += 1
        after.observe("turns", QueueFlow(100, running, int(rate * (clock.now - began))))


def test_before_anything_is_measured_it_is_a_guess(after: RetryAfter) -> None:
    """A process that has just started knows no rate."""
    assert [after.seconds(error) for error in (FULL, SESSION_FULL)] == [UNMEASURED] * 2


@pytest.mark.parametrize(("rate", "seconds"), [(100.0, 1), (1.0, 1), (0.5, 2), (0.25, 4), (0.1, 10)])
def test_a_full_queue_has_room_as_fast_as_turns_leave_it(
    after: RetryAfter, clock: Clock, rate: float, seconds: int
) -> None:
    """One refused client is told the time that a turn takes to leave."""
    pass_time(after, clock, seconds=40, rate=rate)
    assert after.seconds(FULL) == seconds


def test_refused_clients_are_told_times_one_after_another(after: RetryAfter, clock: Clock) -> None:
    """Two a second have room, so of ten clients two are told each second."""
    pass_time(after, clock, seconds=20, rate=2)
    assert [after.seconds(FULL) for _ in range(10)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    clock.now += 60
    assert after.seconds(FULL) == 1


def test_the_time_told_has_a_limit_and_is_spread_there(after: RetryAfter, clock: Clock) -> None:
    """More than a minute is never told, and those beyond it do not come back together."""
    pass_time(after, clock, seconds=20, rate=1)
    told = [after.seconds(FULL) for _ in range(500)]
    assert set(told) <= set(range(LEAST, MOST + 1))
    assert len(set(told[100:])) > 10


def test_a_queue_that_nothing_leaves_is_asked_less_and_less(after: RetryAfter, clock: Clock) -> None:
    """Without a worker the time told grows with the time that nothing was taken."""
    pass_time(after, clock, seconds=4, rate=0)
    first = after.seconds(FULL)
    pass_time(after, clock, seconds=26, rate=0)
    assert first < 10 < after.seconds(FULL)


def test_an_idle_queue_says_nothing_of_its_rate(after: RetryAfter, clock: Clock) -> None:
    """After an hour in which one turn was posted, a burst finds workers that take many a second."""
    after.observe("turns", QueueFlow(0, 0, 1))
    clock.now += 55
    after.observe("turns", QueueFlow(0, 0, 2))
    clock.now += 2
    after.observe("turns", QueueFlow(100, 50, 102))
    assert after.seconds(FULL) == 1


def test_a_counter_that_starts_again_is_no_rate(after: RetryAfter, clock: Clock) -> None:
    """The server has forgotten it: measured from there on."""
    pass_time(after, clock, seconds=20, rate=10)
    after.observe("turns", QueueFlow(100, 0, 0))
    assert after.seconds(FULL) == UNMEASURED


@pytest.mark.parametrize(("running", "rate", "seconds"), [(10, 1.0, 10), (10, 10.0, 1), (400, 2.0, 60)])
def test_a_full_session_has_room_when_a_turn_ends(
    after: RetryAfter, clock: Clock, running: int, rate: float, seconds: int
) -> None:
    """What runs by the rate at which it changes is how long a turn takes."""
    pass_time(after, clock, seconds=20, rate=rate, running=running)
    assert after.seconds(SESSION_FULL) == seconds


def test_each_queue_has_its_own_rate(after: RetryAfter, clock: Clock) -> None:
    """A slow queue does not hold up the clients of a fast one."""
    pass_time(after, clock, seconds=20, rate=0.1)
    assert after.seconds(QueueFullError("other")) == UNMEASURED


@pytest.mark.parametrize("error", [DrainingError(), TurnUnfinishedError("s.1")])
def test_a_process_that_drains_is_left_within_seconds(
    after: RetryAfter, clock: Clock, error: DrainingError | TurnUnfinishedError
) -> None:
    """By then a load balancer knows, or the process has ended."""
    assert after.seconds(error) == NOTICED
    after.ends_in(3)
    assert after.seconds(error) == 3
    clock.now += 10
    assert after.seconds(error) == LEAST


def test_what_passes_by_itself_is_tried_soon_and_not_by_all_at_once(after: RetryAfter) -> None:
    """A store that fails over: some seconds, spread."""
    told = {after.seconds(NotDurableError("no replica")) for _ in range(100)}
    assert told == set(range(LEAST, SHORT + 1))


async def test_a_refused_post_says_the_rate_that_was_measured(
    serve: Serve, store: Store, clock: Clock
) -> None:
    """Turns are claimed from a full queue; 429 says how long a claim takes, from the store's own count."""
    api = serve(max_queued=3)
    api.context.retry_after = told = RetryAfter(clock)
    async with client_of(api) as client:
        for session in "abcde":
            await post(client, session)
        told.observe("turns", await store.queue_flow("turns"))
        for session in "fg":
            await claim(store)
            assert (await post(client, session)).status_code == 202
        clock.now += 16
        told.observe("turns", await store.queue_flow("turns"))
        full = await post(client, "h")
        assert (full.status_code, full.json()["code"], full.headers["retry-after"]) == (
            429,
            "queue_full",
            "8",
        )


async def test_what_is_cancelled_or_expires_leaves_the_queue_too(serve: Serve, store: Store) -> None:
    """Each turn that leaves counts once, however it does."""
    async with client_of(serve()) as client:
        for _ in range(3):
            await post(client)
        assert (await store.queue_flow("turns")) == QueueFlow(3, 0, 0)
        await client.post("/v1/turns/s.3/cancel")
        assert (await store.queue_flow("turns")) == QueueFlow(2, 0, 1)
        await claim(store)
        assert (await store.queue_flow("turns")) == QueueFlow(1, 1, 2)


async def test_the_queues_are_measured_all_the_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal asks Redis for nothing: the process has looked before."""
    monkeypatch.setattr("turnpool_api.upkeep.LOOK_SECONDS", 0.02)
    api = serve(max_queued=1)
    async with client_of(api) as client:
        await post(client, "a")

        async def measured() -> bool:
            return (await post(client, "b")).headers["retry-after"] != str(UNMEASURED)

        await wait_until(measured)


async def test_a_draining_process_says_when_another_one_has_the_requests(serve: Serve) -> None:
    """Posts and the readiness probe alike; after a signal no later than the end."""
    api = serve(api_drain_seconds=2)
    async with client_of(api) as client:
        api.context.drain()
        for answer in (await post(client), await client.get("/readyz")):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, str(NOTICED))
        stop_streams(api.app)
        assert (await post(client)).headers["retry-after"] == "2"
