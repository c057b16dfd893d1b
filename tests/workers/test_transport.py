"""How many wake-ups a worker takes with one command."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any

import pytest
from celery.worker import state
from redis.asyncio import Redis

from turnpool.settings import Settings
from turnpool.store.wakeups import WakeUps
from turnpool_workers.celery.app import make_app
from turnpool_workers.celery.transport import MAX_AT_ONCE

pytestmark = pytest.mark.anyio


class Slot:
    """A wake-up that is being served; Celery keeps these in a weak set."""


@contextmanager
def taking(settings: Settings, taken: list[str]) -> Iterator[Any]:
    """A channel of the worker's connection, whose wake-ups are kept: the queue of each."""
    app = make_app(settings)
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        for queue in app.amqp.queues.consume_from.values():
            queue(channel).declare()
            channel.basic_consume(
                queue.name,
                no_ack=True,
                callback=lambda message: taken.append(message.delivery_info["routing_key"]),
                consumer_tag=queue.name,
            )
        channel.client.connection = channel.client.connection_pool.get_connection()
        yield channel


def take(channel: Any) -> None:
    """One command."""
    channel._brpop_start(timeout=0.01)
    channel._brpop_read()


async def wake(settings: Settings, *queues: str) -> None:
    """Publish."""
    wakeups = WakeUps(Redis.from_url(settings.redis_url), "turnpool")
    wakeups.publish(queues)
    await wakeups.close()


async def test_a_burst_is_taken_in_few_commands(settings: Settings) -> None:
    """Ten at once, and what is left stays in the list."""
    await wake(settings, *["turns"] * 25)
    taken: list[str] = []
    with taking(settings.model_copy(update={"concurrency": 200}), taken) as channel:
        for count in (10, 20, 25):
            take(channel)
            assert len(taken) == count
        with pytest.raises(Empty):
            take(channel)
    assert MAX_AT_ONCE == 10


async def test_no_more_are_taken_than_a_part_of_the_free_slots(settings: Settings) -> None:
    """A worker with few leaves the others theirs; one at least is taken, since it asks only if it has one."""
    await wake(settings, *["turns"] * 25)
    taken: list[str] = []
    busy = [Slot() for _ in range(15)]
    state.reserved_requests.update(busy)
    try:
        with taking(settings.model_copy(update={"concurrency": 45}), taken) as channel:
            take(channel)
            assert len(taken) == 3
            busy += [Slot() for _ in range(29)]
            state.reserved_requests.update(busy)
            take(channel)
            assert len(taken) == 4
    finally:
        state.reserved_requests.difference_update(busy)


async def test_each_wake_up_comes_for_its_queue(settings: Settings) -> None:
    """A command takes from one queue; the next has its turn then, however many the first has left."""
    await wake(settings, *["turns", "slow"] * 15)
    taken: list[str] = []
    both = Settings(redis_url=settings.redis_url, queues="turns,slow", concurrency=200)
    with taking(both, taken) as channel:
        for _ in range(4):
            take(channel)
    assert [len(set(taken[start : start + 10])) for start in (0, 10)] == [1, 1]
    assert taken[0] != taken[10]
    assert sorted(taken) == ["turnpool:slow"] * 15 + ["turnpool:turns"] * 15
