"""Wake-ups as we write them and as Celery does."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis.asyncio import Redis
from redis.exceptions import ConnectionError  # noqa: A004

from tests.serving import serving
from turnpool.settings import Settings
from turnpool.store.wakeups import TASK_NAME, WakeUps
from turnpool_workers.celery.app import make_app

pytestmark = pytest.mark.anyio

LIST = "turnpool:turns"
# What Celery adds for features that wake-ups do not use; the worker reads each with a default.
UNUSED = {"shadow", "group_index", "replaced_task_nesting", "stamped_headers", "stamps"}


async def test_a_wake_up_is_what_celery_would_send(settings: Settings) -> None:
    """Body, envelope, headers and properties match those of send_task, but for ids and unused headers."""
    async with Redis.from_url(settings.redis_url) as redis:
        make_app(settings).send_task(TASK_NAME, args=(LIST,), queue=LIST, ignore_result=True)
        wakeups = WakeUps(Redis.from_url(settings.redis_url), "turnpool")
        wakeups.publish(["turns"])
        await wakeups.close()
        ours, theirs = [json.loads(text) for text in await redis.lrange(LIST, 0, -1)]
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
        wakeups = WakeUps(Redis.from_url(settings.redis_url), "turnpool")
        wakeups.publish(["turns"] * 250 + ["other"])
        await wakeups.close()
        ids = [json.loads(text)["headers"]["id"] for text in await redis.lrange(LIST, 0, -1)]
        assert len(set(ids)) == 250
        assert await redis.llen("turnpool:other") == 1


async def test_a_broker_that_is_away_raises_nothing() -> None:
    """The wake-up is dropped: publishing never fails a request."""
    wakeups = WakeUps(Redis.from_url("redis://127.0.0.1:1/0"), "turnpool")
    wakeups.publish(["turns"])
    await wakeups.close()


@asynccontextmanager
async def listening(authority: trustme.CA) -> AsyncIterator[tuple[int, bytearray]]:
    """A TLS server whose certificate is of this authority: its port, and what it was sent."""
    heard = bytearray()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        heard.extend(await reader.read(1000))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with serving(hear, context) as port:
        yield port, heard


def talk(url: str) -> None:
    """Talk to the broker as Celery does, workers and Flower alike."""
    with make_app(Settings(redis_url=url)).connection_for_read() as connection:
        connection.connect()


@pytest.mark.slow
@pytest.mark.parametrize("known", [False, True])
async def test_celery_gives_the_password_to_a_server_with_a_good_certificate_only(
    known: bool,  # noqa: FBT001 - a case
    tmp_path: Path,
) -> None:
    """By default an authority that the system does not know is refused before anything is sent."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    async with listening(authority) as (port, heard):
        query = f"?ssl_ca_certs={tmp_path}/ca.crt" if known else ""
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(talk, f"rediss://:geheim@127.0.0.1:{port}/0{query}")
        assert (b"geheim" in heard) is known


def decoded(message: dict[str, Any]) -> Any:
    """The task's body."""
    return json.loads(base64.b64decode(message["body"]))


def without(fields: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The other fields."""
    return {name: value for name, value in fields.items() if name not in names}
