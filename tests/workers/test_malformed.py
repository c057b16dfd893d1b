"""Messages that nobody of ours has sent: each is logged once and dropped, and the next wake-up is served."""

import base64
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tests.workers.test_transport import take, taking, wake
from turnpool.settings import Settings
from turnpool.store.wakeups import message, read

pytestmark = pytest.mark.anyio

Change = Callable[[dict[str, Any]], object]


def changed(change: Change) -> bytes:
    """A wake-up with a change."""
    decoded = json.loads(message("turnpool:turns"))
    change(decoded)
    return json.dumps(decoded).encode()


def body(value: object) -> str:
    """A body as kombu encodes it."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def within(member: str, **values: object) -> Change:
    """Set members of a member."""
    return lambda decoded: decoded[member].update(values)


def delivered_to(exchange: str, routing_key: str) -> Change:
    """Say where it was sent to."""
    return within("properties", delivery_info={"exchange": exchange, "routing_key": routing_key})


def without(member: str, name: str) -> Change:
    """Take a member of a member away."""
    return lambda decoded: decoded[member].pop(name)


def with_(**values: object) -> Change:
    """Set members; `_` in a name is `-` there."""
    return lambda decoded: decoded.update({name.replace("_", "-"): value for name, value in values.items()})


NO_MESSAGES = {
    "a number": b"1",
    "null": b"null",
    "true": b"true",
    "a list": b"[]",
    "a text": b'"x"',
    "an empty object": b"{}",
    "nothing": b"",
    "no JSON": b"nonsense",
    "half of one": message("turnpool:turns")[:-1],
    "two": message("turnpool:turns") * 2,
    "no UTF-8": b"\xff\xfe",
    "no UTF-8 inside": message("turnpool:turns").replace(b"lang", b"l\xffng"),
    "a NUL": b"\0",
    "nested": b"[" * 5_000 + b"]" * 5_000,
    "nested objects": b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
    "huge": b'"' + b"x" * 5_000_000 + b'"',
    "NaN": b"NaN",
    "compressed": zlib.compress(message("turnpool:turns")),
}
CHANGES: dict[str, Change] = {
    "no body": lambda decoded: decoded.pop("body"),
    "body null": with_(body=None),
    "body a number": with_(body=1),
    "body no base64": with_(body="%%%"),
    "body no JSON": with_(body=base64.b64encode(b"nonsense").decode()),
    "body of another queue": with_(body=body([["other"], {}, {}])),
    "body without arguments": with_(body=body([[], {}, {}])),
    "body of the first protocol": with_(
        body=body({"task": "turnpool.wake_up", "id": "x", "args": ["turnpool:turns"]})
    ),
    "unknown content type": with_(content_type="application/x-unknown"),
    "pickle": with_(content_type="application/x-python-serialize"),
    "no content type": with_(content_type=None),
    "unknown content encoding": with_(content_encoding="ebcdic-1"),
    "content encoding a list": with_(content_encoding=[]),
    "no headers": lambda decoded: decoded.pop("headers"),
    "headers null": with_(headers=None),
    "headers a list": with_(headers=[]),
    "headers a text": with_(headers="task"),
    "headers empty": with_(headers={}),
    "unknown task": within("headers", task="os.system"),
    "task null": within("headers", task=None),
    "task a list": within("headers", task=[]),
    "no task": without("headers", "task"),
    "no id": without("headers", "id"),
    "id null": within("headers", id=None),
    "id a number": within("headers", id=1),
    "id a list": within("headers", id=[]),
    "id a long text": within("headers", id="x" * 5_000),
    "ids that differ": within("headers", root_id="00000000-0000-0000-0000-000000000001"),
    "expired": within("headers", expires="2001-01-01T00:00:00+00:00"),
    "expires nonsense": within("headers", expires="nonsense"),
    "eta far away": within("headers", eta="9999-01-01T00:00:00+00:00"),
    "eta nonsense": within("headers", eta={}),
    "retries": within("headers", retries=-1),
    "retries a text": within("headers", retries="x"),
    "timelimit a number": within("headers", timelimit=1),
    "timelimit set": within("headers", timelimit=[0, 0]),
    "no properties": lambda decoded: decoded.pop("properties"),
    "properties null": with_(properties=None),
    "properties a list": with_(properties=[1]),
    "no delivery tag": without("properties", "delivery_tag"),
    "delivery tag null": within("properties", delivery_tag=None),
    "no delivery info": without("properties", "delivery_info"),
    "delivery info null": within("properties", delivery_info=None),
    "delivery info of another queue": within(
        "properties", delivery_info={"exchange": "", "routing_key": "b"}
    ),
    "delivery info of an exchange": within(
        "properties", delivery_info={"exchange": "x", "routing_key": "turnpool:turns"}
    ),
    "delivery info without a key": within("properties", delivery_info={"exchange": ""}),
    "unknown body encoding": within("properties", body_encoding="rot13"),
    "priority a list": within("properties", priority=[]),
}
MALFORMED = NO_MESSAGES | {name: changed(change) for name, change in CHANGES.items()}


@pytest.mark.parametrize("name", MALFORMED)
async def test_each_is_logged_once_and_takes_no_wake_up_with_it(settings: Settings, name: str) -> None:
    """Whoever may write to the list may write anything."""
    await wake(settings, "turns", "turns")
    async with Redis.from_url(settings.redis_url) as redis:
        await redis.rpush("turnpool:turns", MALFORMED[name])
    taken: list[str] = []
    with taking(settings.model_copy(update={"concurrency": 200}), taken) as channel, capture_logs() as logs:
        take(channel)
    assert taken == ["turnpool:turns"] * 2
    assert [(entry["event"], entry["bytes"]) for entry in logs] == [
        ("malformed_wakeup", len(MALFORMED[name]))
    ]


UNUSUAL: dict[str, Change] = {
    "more members": with_(more=[1]),
    "more headers": within("headers", compression="zlib", argsrepr_long="x", stamps={}),
    "more properties": within("properties", reply_to="somewhere", expiration="1"),
}


@pytest.mark.parametrize("name", UNUSUAL)
async def test_what_a_newer_release_may_add_does_not_matter(settings: Settings, name: str) -> None:
    """It does not reach Celery, which would act on it."""
    async with Redis.from_url(settings.redis_url) as redis:
        await redis.rpush("turnpool:turns", changed(UNUSUAL[name]))
    taken: list[str] = []
    with taking(settings, taken) as channel, capture_logs() as logs:
        take(channel)
    assert (taken, logs) == (["turnpool:turns"], [])


def test_a_wake_up_is_read_as_it_was_written() -> None:
    """By its own queue."""
    own = message("turnpool:turns")
    assert read(own, "turnpool:turns") == json.loads(own)
    assert read(own, "other") is None


BROADCASTS = {
    "a number": b"1",
    "null": b"null",
    "a list": b"[]",
    "no JSON": b"nonsense",
    "no UTF-8": b"\xff",
    "an empty object": b"{}",
    "properties null": b'{"properties": null}',
    "no tag": b'{"body": "", "properties": {}}',
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "a type of kombu's": b'{"__type__": "datetime", "__value__": 1}',
    "a type of nobody's": b'{"__type__": [], "__value__": {}}',
    "unknown encoding": b'{"body": "x", "properties": {"delivery_tag": "1", "body_encoding": "rot13"}}',
    "body no base64": b'{"body": "%", "properties": {"delivery_tag": "1", "body_encoding": "base64"}}',
    "body a number": b'{"body": 1, "properties": {"delivery_tag": "1", "body_encoding": "base64"}}',
    "headers a list": b'{"body": "", "headers": [1], "properties": {"delivery_tag": "1"}}',
    "unknown type": b'{"body": "x", "content-type": "a/b", "properties": {"delivery_tag": "1"}}',
}


GOOD_BROADCAST = {
    "body": "e30=",
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": {},
    "properties": {"delivery_tag": "good", "body_encoding": "base64"},
}


@pytest.mark.parametrize("name", BROADCASTS)
async def test_a_malformed_broadcast_takes_no_other_with_it(settings: Settings, name: str) -> None:
    """Celery's remote control and its events are published, to all who listen."""
    heard: list[Any] = []
    with taking(settings, []) as channel:
        channel.exchange_declare("celery.pidbox", "fanout")
        channel.queue_declare("mailbox")
        channel.queue_bind("mailbox", "celery.pidbox", "")
        channel.basic_consume("mailbox", no_ack=True, callback=heard.append, consumer_tag="mailbox")
        subscriber = channel.subclient
        subscriber.connection = subscriber.connection_pool.get_connection()
        channel._subscribe()
        assert not channel._receive_one(subscriber)
        async with Redis.from_url(settings.redis_url) as redis:
            await redis.publish("/0.celery.pidbox", BROADCASTS[name])
            await redis.publish("/0.celery.pidbox", json.dumps(GOOD_BROADCAST))
        for _ in range(2):
            with suppress(Empty):
                channel._receive_one(subscriber)
    assert heard[-1].delivery_tag == "good"


@pytest.mark.parametrize("name", MALFORMED | BROADCASTS)
async def test_a_malformed_reply_takes_no_other_with_it(settings: Settings, name: str) -> None:
    """Flower has a mailbox, where workers' answers to remote control come."""
    heard: list[Any] = []
    with taking(settings, []) as channel:
        channel.basic_cancel("turns")
        channel.basic_consume("x.reply.pidbox", no_ack=True, callback=heard.append, consumer_tag="x")
        async with Redis.from_url(settings.redis_url) as redis:
            await redis.lpush("x.reply.pidbox", (MALFORMED | BROADCASTS)[name], json.dumps(GOOD_BROADCAST))
        take(channel)
    assert heard[-1].delivery_tag == "good"
