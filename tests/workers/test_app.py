"""Wake-ups as we write them and as Celery does."""

import base64
import json
from typing import Any

import pytest
from redis.asyncio import Redis

from turnpool.settings import Settings
from turnpool.wakeups import TASK_NAME, WakeUps
from workers.app import make_app

pytestmark = pytest.mark.anyio

# What Celery adds for features that wake-ups do not use; the worker reads each with a default.
UNUSED = {"shadow", "group_index", "replaced_task_nesting", "stamped_headers", "stamps"}


async def test_a_wake_up_is_what_celery_would_send(settings: Settings) -> None:
    """Body, envelope, headers and properties match those of send_task, but for ids and unused headers."""
    async with Redis.from_url(settings.redis_url) as redis:
        make_app(settings).send_task(TASK_NAME, args=("turns",), queue="turns", ignore_result=True)
        wakeups = WakeUps(Redis.from_url(settings.redis_url))
        wakeups.publish(["turns"])
        await wakeups.close()
        ours, theirs = [json.loads(text) for text in await redis.lrange("turns", 0, -1)]
    assert ours.keys() == theirs.keys()
    assert decoded(ours) == decoded(theirs)
    assert theirs["headers"].keys() - ours["headers"].keys() == UNUSED
    differing = {"id", "root_id", "origin"} | UNUSED
    assert without(ours["headers"], differing) == without(theirs["headers"], differing)
    differing = {"correlation_id", "delivery_tag", "reply_to"}
    assert without(ours["properties"], differing) == without(theirs["properties"], differing)


async def test_every_wake_up_is_sent_with_an_id_of_its_own(settings: Settings) -> None:
    """Many at once are many messages, the queues apart."""
    async with Redis.from_url(settings.redis_url) as redis:
        wakeups = WakeUps(Redis.from_url(settings.redis_url))
        wakeups.publish(["turns"] * 250 + ["other"])
        await wakeups.close()
        ids = [json.loads(text)["headers"]["id"] for text in await redis.lrange("turns", 0, -1)]
        assert len(set(ids)) == 250
        assert await redis.llen("other") == 1


async def test_a_broker_that_is_away_raises_nothing() -> None:
    """The wake-up is dropped: publishing never fails a request."""
    wakeups = WakeUps(Redis.from_url("redis://127.0.0.1:1/0"))
    wakeups.publish(["turns"])
    await wakeups.close()


def decoded(message: dict[str, Any]) -> Any:
    """The task's body."""
    return json.loads(base64.b64decode(message["body"]))


def without(fields: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The other fields."""
    return {name: value for name, value in fields.items() if name not in names}
