"""Which pool a store and a broker belong to, and which processes may work with them."""

import asyncio
import contextlib

import pytest
from redis.asyncio import Redis

from tests.conftest import wait_until
from turnpool import keys
from turnpool.errors import SettingsError
from turnpool.settings import Settings
from turnpool.store.membership import SCHEMA, Membership
from turnpool.store.store import Store

RECORD = keys.pool(keys.prefix("turnpool", "0"))


def on(store: str, broker: str, **more: object) -> Settings:
    """Settings of a process whose broker is in another database than its store."""
    return Settings(redis_url=store, broker_url=broker, **more)  # type: ignore[arg-type]


def database(url: str, number: int) -> str:
    """Another database of the same server."""
    return f"{url.rpartition('/')[0]}/{number}"


async def test_the_first_process_makes_the_record_and_others_join(settings: Settings, store: Store) -> None:
    """The record has the schema and one id, however many processes enter at once."""
    await asyncio.gather(*(Membership(settings).enter() for _ in range(5)))
    record = await store.redis.hgetall(RECORD)
    assert record.keys() == {b"schema", b"id"}
    assert record[b"schema"] == str(SCHEMA).encode()
    await Membership(settings).enter()
    assert await store.redis.hgetall(RECORD) == record


@pytest.mark.parametrize("schema", [str(SCHEMA + 1), "0", "x"])
async def test_another_schema_is_refused(settings: Settings, store: Store, schema: str) -> None:
    """A release that does not know the schema says so, and changes nothing."""
    await store.redis.hset(RECORD, mapping={"schema": schema, "id": "a"})
    with pytest.raises(SettingsError, match=f"the store has schema {schema}"):
        await Membership(settings).enter()
    assert await store.redis.hgetall(RECORD) == {b"schema": schema.encode(), b"id": b"a"}


async def test_data_of_a_release_without_a_schema_is_refused(settings: Settings, store: Store) -> None:
    """It is recognised, not read; another namespace of the same database is free."""
    await store.redis.set(f"{store.prefix}accepted", 1, ex=60)
    with pytest.raises(SettingsError, match="data of an earlier release"):
        await Membership(settings).enter()
    assert not await store.redis.exists(RECORD)
    await Membership(settings.model_copy(update={"namespace": "other"})).enter()


async def test_the_broker_of_another_pool_is_refused(redis_url: str) -> None:
    """Pools with stores of their own can share a broker only under different namespaces."""
    stores, broker = (redis_url, database(redis_url, 1)), database(redis_url, 2)
    await Membership(on(stores[0], broker)).enter()
    await Membership(on(stores[0], broker)).enter()
    with pytest.raises(SettingsError, match="the broker serves another pool"):
        await Membership(on(stores[1], broker)).enter()
    await Membership(on(stores[1], broker, namespace="other")).enter()


async def test_a_pool_whose_store_was_emptied_keeps_its_broker(redis_url: str) -> None:
    """The process that stays writes its id again, so that the broker's record still fits."""
    settings = on(redis_url, database(redis_url, 1))
    member = Membership(settings)
    await member.enter()
    async with Redis.from_url(redis_url) as store:
        before = await store.hgetall(RECORD)
        await store.flushdb()
        await member.enter()
        assert await store.hgetall(RECORD) == before
    await Membership(settings).enter()


async def test_a_pool_whose_store_has_a_new_id_takes_the_broker_along(redis_url: str) -> None:
    """Another process was first after the store was emptied: the broker's record follows."""
    settings = on(redis_url, database(redis_url, 1))
    member = Membership(settings)
    await member.enter()
    async with Redis.from_url(redis_url) as store:
        await store.hset(RECORD, "id", "new")
        with pytest.raises(SettingsError):
            await Membership(settings).enter()
        await member.enter()
    await Membership(settings).enter()


async def test_redis_away_is_no_error_at_the_start() -> None:
    """The process joins later."""
    await Membership(Settings(redis_url="redis://127.0.0.1:1/0")).enter()


async def test_the_broker_s_record_is_kept_as_long_as_a_process_stays(redis_url: str) -> None:
    """It would be gone a minute after the last one."""
    async with Redis.from_url(database(redis_url, 1)) as broker:

        async def written() -> bool:
            return int(await broker.ttl(RECORD)) > 50

        staying = asyncio.create_task(Membership(on(redis_url, database(redis_url, 1))).stay())
        await wait_until(written)
        staying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await staying
