"""Commands of many callers in few pipelines."""

import asyncio

import pytest
from redis.exceptions import RedisError, ResponseError

from tests.conftest import wait_until
from turnpool.redis.connections import connect
from turnpool.redis.errors import is_away
from turnpool.redis.pipelined import MAX_COMMANDS, Pipelined
from turnpool.redis.urls import parse_url
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_each_caller_gets_its_own_answer(store: Store) -> None:
    """Many commands at once, more than one pipeline holds, each with its own answer or error."""
    pipelined = Pipelined(store.redis)

    async def execute(n: int) -> bytes | str:
        try:
            return bytes(await pipelined.execute(*(("ECHO", n) if n % 10 else ("NONSENSE",))))
        except ResponseError as error:
            return str(error)

    answers = await asyncio.gather(*map(execute, range(MAX_COMMANDS * 2 + 5)))
    for n, answer in enumerate(answers):
        if n % 10:
            assert answer == str(n).encode()
        else:
            assert "unknown command 'NONSENSE'" in str(answer)


async def test_commands_go_out_together(store: Store) -> None:
    """A burst of commands costs one connection, where each alone would take one of its own."""
    pipelined = Pipelined(store.redis)
    await asyncio.gather(*(pipelined.execute("ECHO", n) for n in range(50)))
    assert sum(client["cmd"] in {"echo", "client|list"} for client in await store.redis.client_list()) == 1


async def held(store: Store, pipelined: Pipelined) -> list[asyncio.Task[bytes]]:
    """Three commands, one a turn of the loop, behind one that is under way to a server that hangs."""
    await store.redis.execute_command("CLIENT", "PAUSE", 300, "ALL")
    calls = []
    for n in range(4):
        calls.append(asyncio.create_task(pipelined.execute("ECHO", n)))
        for _ in range(3):
            await asyncio.sleep(0)
    return calls


async def test_those_given_meanwhile_are_the_next_pipeline(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are; none goes alone."""
    monkeypatch.setattr("turnpool.redis.pipelined.MAX_HOLD", 10)
    pipelined = Pipelined(store.redis)
    calls = await held(store, pipelined)
    assert (len(pipelined._sent), len(pipelined._waiting)) == (1, 3)
    assert await asyncio.wait_for(asyncio.gather(*calls), 5) == [b"0", b"1", b"2", b"3"]
    assert (pipelined._sent, pipelined._waiting, pipelined._tasks) == (set(), [], set())


async def test_a_server_that_hangs_holds_up_no_others_for_long(store: Store) -> None:
    """They are sent while the first still waits for its answer."""
    pipelined = Pipelined(store.redis)
    calls = await held(store, pipelined)

    async def are_sent() -> bool:
        return len(pipelined._sent) == 4

    await wait_until(are_sent)
    assert not calls[0].done()
    assert await asyncio.gather(*calls) == [b"0", b"1", b"2", b"3"]


async def test_a_caller_that_is_cancelled_takes_no_other_with_it(store: Store) -> None:
    """The others of its pipeline get their answers."""
    pipelined = Pipelined(store.redis)
    calls = [asyncio.create_task(pipelined.execute("ECHO", n)) for n in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert (answers[0], answers[2]) == (b"0", b"2")
    assert isinstance(answers[1], asyncio.CancelledError)


async def test_every_caller_learns_that_redis_is_away() -> None:
    """No one waits for an answer that does not come."""
    redis = connect(parse_url("redis://127.0.0.1:1/0"))
    pipelined = Pipelined(redis)
    calls = [pipelined.execute("PING") for _ in range(3)]
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, RedisError)
        assert is_away(error)
    await redis.aclose()


async def test_callers_of_a_server_that_hangs_can_be_sent_away(store: Store) -> None:
    """They get the error at once; an answer that comes after all harms nobody."""
    pipelined = Pipelined(store.redis)
    assert await pipelined.execute("CLIENT", "PAUSE", 200, "ALL")
    calls = [asyncio.create_task(pipelined.execute("ECHO", n)) for n in range(3)]

    async def are_sent() -> bool:
        return len(pipelined._sent) == 3

    await wait_until(are_sent)
    pipelined.give_up(RedisError("gone"))
    assert [str(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == ["gone"] * 3
    assert await pipelined.execute("ECHO", "x") == b"x"
