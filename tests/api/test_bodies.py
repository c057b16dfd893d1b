"""Bodies: the key before the body, bytes in memory, and errors that cost little."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr, ValidationError

from tests.api import raw
from tests.api.clients import client_of
from tests.api.conftest import Serve
from tests.conftest import wait_until
from turnpool_api.http import bodies
from turnpool_api.http.bodies import Memory
from turnpool_api.http.errors import OverloadedError
from turnpool_api.routes.schemas import ChatRequest, SessionRequest, TurnRequest

pytestmark = pytest.mark.anyio

KEYED = {"api_keys": SecretStr("ann:a-key")}
POST = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    "path", [b"/v1/sessions/s/turns", b"/v1/sessions", b"/chat/s", b"/v1/nothing", b"/nowhere"]
)
@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 900000\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"Content-Length: 9\r\n\r\n",
    ],
)
@pytest.mark.parametrize("key", [b"", b"Authorization: Bearer wrong\r\n", b"Authorization: Basic a-key\r\n"])
async def test_a_key_is_checked_before_the_body_is_read(
    serve: Serve, path: bytes, body: bytes, key: bytes
) -> None:
    """401 while the body is still on its way; no byte of it is taken for a request."""
    async with raw.connect(serve(**KEYED).port) as connection:
        await connection.send(POST % path + key + body)
        answer = await connection.answer(5)
        assert (answer.status, answer.code) == (401, "unauthorized")
        assert answer.headers["connection"] == "close"
        await connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await connection.is_closed(5)


async def test_a_key_in_a_trailer_is_none(serve: Serve) -> None:
    """Trailers arrive after the headers have been acted on."""
    async with raw.connect(serve(**KEYED).port) as connection:
        body = b"f\r\n" + b'{"input": "hi"}' + b"\r\n0\r\nAuthorization: Bearer a-key\r\n\r\n"
        head = POST % b"/v1/sessions/s/turns" + b"Transfer-Encoding: chunked\r\n\r\n"
        await connection.send(head + body)
        assert (await connection.answer()).status == 401


async def test_expect_continue_needs_a_key(serve: Serve) -> None:
    """With one the server asks for the body; without one it says 401 and not 100."""
    api = serve(**KEYED)
    for key, status in ((b"", 401), (b"Authorization: Bearer a-key\r\n", 100)):
        async with raw.connect(api.port) as connection:
            head = (
                POST % b"/v1/sessions/s/turns" + key + b"Expect: 100-continue\r\nContent-Length: 15\r\n\r\n"
            )
            await connection.send(head)
            assert (await connection.answer()).status == status
            if status == 100:
                await connection.send(b'{"input": "hi"}')
                assert (await connection.answer()).status == 202


async def test_a_body_whose_client_has_gone_is_no_turn(serve: Serve) -> None:
    """Though what has arrived is JSON."""
    api = serve()
    async with raw.connect(api.port) as connection:
        await connection.send(POST % b"/v1/sessions/s/turns" + b'Content-Length: 99\r\n\r\n{"input": "hi"}')

    async def is_over() -> bool:
        return not api.server_state.connections and not api.server_state.tasks

    await wait_until(is_over, 5)
    async with client_of(api) as client:
        assert (await client.get("/v1/sessions")).json()["sessions"] == []


async def test_shares_of_the_memory_are_given_in_order() -> None:
    """A large one is not overtaken by smaller ones, and one that is given up gives its share to the next."""
    memory = Memory(100)
    given: list[int] = []
    done = {size: asyncio.Event() for size in (60, 50, 41, 10)}

    async def hold(size: int) -> None:
        async with memory.share(size):
            given.append(size)
            await done[size].wait()

    tasks = {}
    for size in done:
        tasks[size] = asyncio.create_task(hold(size))
        await asyncio.sleep(0)
    assert given == [60]
    tasks[50].cancel()
    await asyncio.wait([tasks[50]])
    assert given == [60]
    done[60].set()
    await asyncio.wait([tasks[60]])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sorted(given) == [10, 41, 60]
    for event in done.values():
        event.set()
    await asyncio.gather(tasks[41], tasks[10])
    async with memory.share(100):
        pass


async def test_no_body_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too long a wait, and too many that wait, are 503s; the share is whole afterwards."""
    monkeypatch.setattr(bodies, "WAIT_SECONDS", 0.1)
    monkeypatch.setattr(bodies, "MAX_WAITING", 1)
    memory = Memory(100)

    async def take() -> None:
        async with memory.share(10):
            pass

    async with memory.share(95):
        found = await asyncio.gather(take(), take(), return_exceptions=True)
        assert [type(each) for each in found] == [OverloadedError, OverloadedError]
    async with memory.share(100):
        pass


@pytest.mark.slow
async def test_slow_bodies_do_not_keep_others_waiting(serve: Serve) -> None:
    """All of the memory is held by bodies that hardly move; a whole one is accepted all the same."""
    api = serve(max_bodies_bytes=2 * MEGABYTE)
    head = POST % b"/v1/sessions/s/turns" + b"Content-Length: 900000\r\n\r\n"
    async with raw.connect(api.port) as one, raw.connect(api.port) as two, client_of(api) as client:
        for slow in (one, two):
            await slow.send(head + b" " * 70_000)
        answer = asyncio.create_task(
            client.post("/v1/sessions/t/turns", json={"input": "x" * 900_000}, timeout=20)
        )
        assert (await answer).status_code == 202
        assert (await one.answer()).status == 408


@pytest.mark.slow
@pytest.mark.parametrize("chunked", [False, True])
async def test_many_large_posts_at_once_are_all_accepted(serve: Serve, *, chunked: bool) -> None:
    """They wait for each other."""
    api = serve(max_bodies_bytes=3 * MEGABYTE)
    body = orjson.dumps({"input": "x" * 900_000})

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    async with client_of(api) as client:
        headers = {"Content-Type": "application/json"}

        async def post(n: int) -> httpx.Response:
            content = pieces() if chunked else body
            return await client.post(f"/v1/sessions/s{n}/turns", content=content, headers=headers, timeout=30)

        answers = await asyncio.gather(*(post(n) for n in range(30)))
    assert {answer.status_code for answer in answers} == {202}


def many(item: bytes, count: int) -> bytes:
    """So many of it in a list."""
    return b"[" + b",".join([item] * count) + b"]"


def fields(count: int) -> bytes:
    """So many fields."""
    return b",".join(b'"a%d":1' % n for n in range(count))


WRONG: dict[str, tuple[Any, bytes]] = {
    "empty messages": (TurnRequest, b'{"input":%b}' % many(b"{}", 330_000)),
    "numbers": (TurnRequest, b'{"input":%b}' % many(b"1", 490_000)),
    "lists": (TurnRequest, b'{"input":%b}' % many(b"[]", 330_000)),
    "bad roles": (TurnRequest, b'{"input":%b}' % many(b'{"role":"x"}', 75_000)),
    "too many messages": (TurnRequest, b'{"input":%b}' % many(b'{"role":"user"}', 60_000)),
    "parts": (TurnRequest, b'{"input":[{"role":"user","content":%b}]}' % many(b"1", 490_000)),
    "unknown fields": (TurnRequest, b'{"input":"x",%b}' % fields(80_000)),
    "unknown fields alone": (TurnRequest, b"{%b}" % fields(80_000)),
    "of a session": (SessionRequest, b"{%b}" % fields(80_000)),
    "of a session, with an id": (SessionRequest, b'{"id":"s",%b}' % fields(80_000)),
    "of a chat": (ChatRequest, b'{"message":"x",%b}' % fields(80_000)),
    "of a chat alone": (ChatRequest, b"{%b}" % fields(80_000)),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_body_costs_no_error_for_each_of_its_faults(case: str) -> None:
    """A megabyte can have 300,000 of them, which took seconds."""
    model, body = WRONG[case]
    for value in (body, orjson.loads(body)):
        validate = model.model_validate_json if isinstance(value, bytes) else model.model_validate
        with pytest.raises(ValidationError) as caught:
            validate(value)
        assert caught.value.error_count() <= 20


@pytest.mark.parametrize("path", ["/v1/sessions/s/turns", "/v1/sessions", "/chat/s"])
async def test_what_is_wrong_with_a_megabyte_is_told_briefly(client: httpx.AsyncClient, path: str) -> None:
    """On every route with a body: the first faults, and no long name is sent back."""
    for _, body in WRONG.values():
        answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert len(answer.content) < 2000
    answer = await client.post(path, json={"n" * 500_000: 1, "input": "x", "message": "x"})
    assert answer.status_code == 422
    assert len(answer.content) < 2000
