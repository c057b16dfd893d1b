"""Wake-ups: the Celery messages that say "there is work in queue Q".

They are written straight into the broker's list, in Celery's message protocol 2 within kombu's
envelope of its Redis transport, since all are alike: `send_task` takes 0.5 ms and blocks, this some
microseconds a message, many in one round trip, without Celery in this process. A test compares
them with what Celery itself sends (tests/workers/test_app.py).
Source: https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

import asyncio
import base64
import re
import uuid
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

import orjson
from redis.asyncio import Redis

from turnpool import keys
from turnpool.logs import get_logger
from turnpool.redis.errors import DRIVER_ERRORS, translating
from turnpool.store.store import Store

TASK_NAME = "turnpool.wake_up"
# Where a wake-up's id goes.
NO_ID = bytes(str(uuid.UUID(int=0)), "ascii")
ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# A wake-up has about 1,000; whatever is longer is not even parsed.
MAX_BYTES = 10_000
# Wake-ups in one command: some 100 KB.
BATCH = 100
# Seconds between two looks for lost wake-ups: longer than a wake-up is on its way.
TOP_UP_SECONDS = 1.0

log = get_logger(__name__)


class WakeUps:
    """Publishes a pool's wake-ups from one event loop, without ever making the caller wait.

    One that cannot be sent is dropped with a warning: workers and APIs top up what is missing.
    """

    def __init__(self, broker: Redis, namespace: str) -> None:
        self._broker = broker
        self._namespace = namespace
        self._wanted: Counter[str] = Counter()
        self._sending: asyncio.Task[None] | None = None

    def publish(self, queues: Iterable[str]) -> None:
        """Send one wake-up for each queue named, soon."""
        self._wanted.update(queues)
        if self._wanted and self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="wakeups")

    async def top_up(self, store: Store, queue: str) -> int:
        """Publish the wake-ups that a queue misses, or take away those too many; gives how many it missed.

        Raises StoreAwayError.
        """
        name = keys.wakeups(self._namespace, queue)
        with translating():
            listed = int(await self._broker.llen(name))
        missing = await store.top_up(queue, listed, int(TOP_UP_SECONDS * 1000))
        self.publish([queue] * missing)
        if missing < 0:
            with translating():
                await self._broker.rpop(name, -missing)
        return max(missing, 0)

    async def close(self) -> None:
        """Send what is left, then close the connection."""
        if self._sending:
            await self._sending
        await self._broker.aclose()

    async def _send(self) -> None:
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, Counter()
                for queue, count in wanted.items():
                    for start in range(0, count, BATCH):
                        await self._push(queue, min(BATCH, count - start))
        finally:
            self._sending = None

    async def _push(self, queue: str, count: int) -> None:
        name = keys.wakeups(self._namespace, queue)
        try:
            await self._broker.lpush(name, *(message(name) for _ in range(count)))
        except DRIVER_ERRORS as error:
            log.warning("wakeups_not_sent", queue=queue, count=count, error=str(error))


def message(name: str) -> bytes:
    """One wake-up for the broker's list of this name, with an id of its own."""
    return _template(name).replace(NO_ID, str(uuid.uuid4()).encode())


@cache
def _template(queue: str) -> bytes:
    return orjson.dumps(envelope(queue, NO_ID.decode()))


def envelope(queue: str, task_id: str) -> dict[str, Any]:
    """A wake-up with this id, as Celery takes it."""
    parts = _parts(queue)
    headers = {**parts["headers"], "id": task_id, "root_id": task_id}
    properties = {**parts["properties"], "correlation_id": task_id, "delivery_tag": task_id}
    return {**parts, "headers": headers, "properties": properties}


def read(message: bytes, queue: str) -> dict[str, Any] | None:
    """A wake-up for the queue, as Celery takes it; None for any other message. More members do not matter."""
    if len(message) > MAX_BYTES:
        return None
    try:
        found = orjson.loads(message)
        task_id = found["headers"]["id"]
        if not ID.fullmatch(task_id):
            return None
        wanted = envelope(queue, task_id)
        same = found == wanted or _has_all(found, wanted)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return wanted if same else None


def _has_all(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(
        value.items() <= found[name].items() if isinstance(value, dict) else value == found[name]
        for name, value in wanted.items()
    )


@cache
def _parts(queue: str) -> dict[str, Any]:
    """What all wake-ups for the queue have in common."""
    body = [[queue], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
    return {
        "body": base64.b64encode(orjson.dumps(body)).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": TASK_NAME,
            "parent_id": None,
            "group": None,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": repr((queue,)),
            "kwargsrepr": "{}",
            "origin": "turnpool",
            "ignore_result": True,
        },
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
        },
    }
