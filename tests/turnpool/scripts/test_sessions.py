"""Creating and deleting sessions (`lua/create_session.lua`, `lua/delete_session.lua`), and listing them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.turnpool.scripts.kit import MakeTurn, completed, contents, kinds, lose, record, take, worker_info
from turnpool import keys
from turnpool.errors import SessionExistsError, SessionNotFoundError, TurnNotFoundError
from turnpool.store.queries import BadCursorError
from turnpool.store.store import Held, Store

pytestmark = pytest.mark.anyio


async def test_a_created_session_is_there(store: Store) -> None:
    """It has its tenant and metadata, no turn, and its time to live."""
    await store.create_session("s", "default", {"topic": "sea"})
    session = await store.session("s", "default")
    assert (session.id, session.tenant, session.metadata) == ("s", "default", {"topic": "sea"})
    assert session.active_turn is None
    assert session.created_at == pytest.approx((await store.redis.time())[0], abs=2)
    assert 3590 < await store.redis.ttl(keys.session(store.prefix, "default:s")) <= 3600


async def test_a_session_is_created_once(store: Store) -> None:
    """A second time is refused and changes nothing."""
    await store.create_session("s", "default", {"a": 1})
    with pytest.raises(SessionExistsError):
        await store.create_session("s", "default", {})
    assert (await store.session("s", "default")).metadata == {"a": 1}


async def test_a_turn_goes_into_a_created_session(store: Store, new_turn: MakeTurn) -> None:
    """The first turn keeps the session's metadata and is its active turn."""
    await store.create_session("s", "default", {"a": 1})
    await store.submit(new_turn())
    session = await store.session("s", "default")
    assert (session.metadata, session.active_turn) == ({"a": 1}, "s.1")


async def test_a_deleted_session_is_gone_with_its_turns(store: Store, new_turn: MakeTurn) -> None:
    """Messages, ended and waiting turns and their logs go; listeners are told of the cancelled ones."""
    await store.submit(new_turn())
    await store.settle(await take(store), [], completed())
    await store.submit(new_turn())
    await store.submit(new_turn())
    async with store.redis.pubsub() as pubsub:
        await pubsub.ssubscribe(keys.events(store.prefix, "0", "default:s"))
        await pubsub.get_message(timeout=5)
        await store.delete_session("s", "default")
        heard = [(await pubsub.get_message(timeout=5))["data"].split(b"\n")[:2] for _ in range(2)]
    assert heard == [[b"3 id: 2", b"event: turn.cancelled"], [b"2 id: 2", b"event: turn.cancelled"]]
    with pytest.raises(SessionNotFoundError):
        await store.session("s", "default")
    for n in (1, 2, 3):
        with pytest.raises(TurnNotFoundError):
            await record(store, f"s.{n}")
        assert await store.frames(f"s.{n}", "default", 0) == []
    assert await contents(store) == []
    assert (await store.queue_state("turns")).queued == 0
    assert (await store.claim("turns", "w"))[0] is None
    assert await store.sessions("default", 10, None) == ([], None)


async def test_a_session_of_many_turns_is_deleted_in_short_calls(store: Store, new_turn: MakeTurn) -> None:
    """The server is free in between; what runs and what waits is not missed, however old it is."""
    many = 2000
    for _ in range(3):
        await store.submit(new_turn())
    await take(store)
    ended = [keys.turn(store.prefix, f"default:s.{n}") for n in range(4, many + 1)]
    async with store.redis.pipeline(transaction=False) as pipeline:
        for turn in ended:
            pipeline.hset(turn, "status", "completed").expire(turn, 60)
        pipeline.hset(keys.line(store.prefix, "default:s"), "n", many)
        await pipeline.execute()
    await store.redis.config_resetstat()
    await store.delete_session("s", "default")
    calls = await store.redis.info("commandstats")
    assert calls["cmdstat_evalsha"]["calls"] >= many / 250
    assert [key async for key in store.redis.scan_iter(f"{store.prefix}turn:*")] == [
        keys.turn(store.prefix, "default:s.1").encode()
    ]
    assert await store.renew(worker_info(), [("default:s.1", 1)]) == {"default:s.1/1": "cancelled"}
    await store.settle(Held("default:s.1", 1, 2), [], completed())
    assert not await store.redis.exists(keys.turn(store.prefix, "default:s.1"))
    assert (await store.queue_state("turns")).queued == 0
    with pytest.raises(SessionNotFoundError):
        await store.delete_session("s", "default")


async def test_a_deletion_that_was_cut_off_can_be_repeated(
    store: Store, new_turn: MakeTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session goes with its last turns, so its client is not told that there is none."""
    await store.submit(new_turn())
    await store.settle(await take(store), [], completed())
    await store.redis.hset(keys.line(store.prefix, "default:s"), "n", 2000)
    execute = store.nodes.execute
    calls = 0

    async def dies(*command: Any) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ConnectionError
        return await execute(*command)

    monkeypatch.setattr(store.nodes, "execute", dies)
    with pytest.raises(ConnectionError):
        await store.delete_session("s", "default")
    assert await contents(store) == ["hello", "hi"]
    await store.delete_session("s", "default")
    assert await contents(store) == []


class Between:
    """Does something between the calls of a deletion, once."""

    def __init__(
        self, store: Store, monkeypatch: pytest.MonkeyPatch, then: Callable[[], Awaitable[object]]
    ) -> None:
        self._run, self._then = store._run, then
        self.done = False
        monkeypatch.setattr(store, "_run", self)

    async def __call__(self, script: str, prefix: str, *arguments: Any) -> Any:
        """A call of a script."""
        if script == "delete_session" and arguments[4] > 1 and not self.done:
            self.done = True
            await self._then()
        return await self._run(script, prefix, *arguments)


@pytest.mark.parametrize("number", [1, 2])
async def test_a_turn_that_ends_between_the_calls_is_deleted(
    store: Store, new_turn: MakeTurn, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """One that ran, or one that waited and would run next."""
    await store.submit(new_turn())
    await store.submit(new_turn())
    held = await take(store)
    await store.redis.hset(keys.line(store.prefix, "default:s"), "n", 300)

    async def end() -> None:
        await store.settle(held, [], completed())
        claimed, _ = await store.claim("turns", "w1")
        assert claimed is None

    between = Between(store, monkeypatch, end)
    await store.delete_session("s", "default")
    assert between.done
    assert not await store.redis.exists(keys.turn(store.prefix, f"default:s.{number}"))


async def test_a_deletion_leaves_a_new_session_alone(
    store: Store, new_turn: MakeTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another deletion was quicker, and then came a turn."""
    await store.submit(new_turn())
    await store.settle(await take(store), [], completed())
    await store.redis.hset(keys.line(store.prefix, "default:s"), "n", 300)

    async def anew() -> None:
        await store.delete_session("s", "default")
        await store.submit(new_turn())

    between = Between(store, monkeypatch, anew)
    await store.delete_session("s", "default")
    assert between.done
    assert (await store.turn("s.301", "default")).status == "queued"


async def test_only_the_tenant_deletes(store: Store, new_turn: MakeTurn) -> None:
    """Another tenant's, and an unknown session are not found; nothing happens to them."""
    await store.submit(new_turn())
    for session, tenant in (("s", "other"), ("unknown", "default")):
        with pytest.raises(SessionNotFoundError):
            await store.delete_session(session, tenant)
    assert (await take(store)).turn_id == "default:s.1"


async def test_a_running_turn_is_stopped_and_writes_nothing_into_a_new_session(
    store: Store, new_turn: MakeTurn
) -> None:
    """No turn number comes twice, the new turns wait for the old one's end, and nothing of it is left."""
    await store.submit(new_turn())
    old = await take(store)
    await store.delete_session("s", "default")
    assert await store.renew(worker_info(), [("default:s.1", 1)]) == {"default:s.1/1": "cancelled"}
    assert (await store.submit(new_turn())).turn_id == "s.2"
    assert (await store.submit(new_turn())).turn_id == "s.3"
    assert await store.unfinished("s", "default") == [1, 2, 3]
    assert (await store.claim("turns", "w2"))[0] is None
    assert await store.settle(old, [], completed("old")) == ("turns",)
    assert await contents(store) == []
    assert await store.unfinished("s", "default") == [2, 3]
    new = await take(store)
    assert new.turn_id == "default:s.2"
    await store.settle(new, [], completed("new"))
    assert await contents(store) == ["hello", "new"]
    assert await kinds(store, "s.1") == []
    with pytest.raises(TurnNotFoundError):
        await store.turn("s.1", "default")


async def test_the_running_turn_of_a_deleted_session_ends_if_its_worker_dies(
    store: Store, new_turn: MakeTurn
) -> None:
    """It is not run again, and leaves nothing in a new session."""
    await store.submit(new_turn())
    old = await take(store)
    await store.delete_session("s", "default")
    await store.submit(new_turn())
    assert (await lose(store, old)).ended == ("default:s.1",)
    assert await contents(store) == []
    assert (await take(store)).turn_id == "default:s.2"


async def test_a_sessions_line_outlives_it(store: Store, new_turn: MakeTurn) -> None:
    """After a delete no turn id is given twice while anything of the session can be read."""
    await store.submit(new_turn())
    await store.settle(await take(store), [], completed("secret"))
    await store.delete_session("s", "default")
    life = await store.redis.ttl(keys.line(store.prefix, "default:s"))
    assert life > store.settings.session_ttl + store.settings.log_ttl
    assert (await store.submit(new_turn())).turn_id == "s.2"


async def test_a_tenant_lists_its_own_sessions_page_by_page(store: Store, new_turn: MakeTurn) -> None:
    """The last used comes first, each comes once, and no other tenant's comes."""
    for n in range(7):
        await store.create_session(f"s{n}", "default", {})
        await store.create_session(f"x{n}", "other", {})
    # Several in the same millisecond: a page must be able to end between them.
    same = {f"s{n}": 5.0 for n in (2, 3, 4, 5)} | {"s0": 9.0, "s1": 8.0, "s6": 1.0}
    stored = {f"default:{name}": score for name, score in same.items()}
    await store.redis.zadd(keys.sessions(store.prefix, "default"), stored)
    for limit in (1, 2, 3, 7, 10):
        listed: list[str] = []
        cursor: str | None = None
        while True:
            page, cursor = await store.sessions("default", limit, cursor)
            listed += [session.id for session in page]
            if cursor is None:
                break
        assert listed == ["s0", "s1", "s5", "s4", "s3", "s2", "s6"], limit
    await store.submit(new_turn("s6"))
    assert (await store.sessions("default", 1, None))[0][0].id == "s6"


@pytest.mark.parametrize(
    "cursor", ["?", "ü", "MQ==", "WzFd", "W251bGwsMV0=", "WzEsLTFd", "WzEsMWUzMF0=", "WzFlMzA5LDFd"]
)
async def test_a_wrong_cursor_is_refused(store: Store, cursor: str) -> None:
    """No base64, no JSON, no pair, no numbers, numbers that Redis can't take: one clear error."""
    await store.create_session("s", "default", {})
    with pytest.raises(BadCursorError):
        await store.sessions("default", 1, cursor)
