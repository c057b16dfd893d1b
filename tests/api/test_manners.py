"""Manners of HTTP: what is accepted, spelt and encoded in other ways than ours."""

import gzip
import re

import httpx
import pytest

from tests.api import raw
from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.server import ApiServer
from tests.conftest import wait_until
from turnpool.settings import Settings
from turnpool_api.http.accept import prefers_stream
from turnpool_api.http.connections import Connections, network_of

pytestmark = pytest.mark.anyio

SSE, JSON = "text/event-stream", "application/json"


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ([SSE], True),
        (["TEXT/EVENT-STREAM"], True),
        (["Text/Event-Stream; charset=utf-8"], True),
        ([JSON, SSE], True),
        ([f"{JSON}, {SSE}"], True),
        ([f"{SSE},*/*;q=0.1"], True),
        ([f"{SSE} ;q=0.5"], True),
        ([f"{SSE};Q=0.5, {JSON};q=0.4"], True),
        (["text/*"], True),
        ([f"text/*, {JSON};q=0.9"], True),
        ([f'a/b;x="y, z;q=0"; q=0.2, {SSE}'], True),
        ([f"{SSE};q=2"], True),
        ([], False),
        ([""], False),
        (["*/*"], False),
        ([JSON], False),
        ([f"{SSE};q=0"], False),
        ([f"{SSE};q=0.000"], False),
        ([f"{SSE}; q=0, */*"], False),
        ([f"{JSON}, {SSE};q=0.5"], False),
        ([f"text/*;q=0.5, {JSON}"], False),
        (["text/event-streams"], False),
        (["x-text/event-stream"], False),
        ([f'a/b;x=", {SSE}"'], False),
        (["application/*, text/*;q=0.1"], False),
        ([",;,q=1;;"], False),
    ],
)
async def test_what_a_client_prefers(accept: list[str], wanted: bool) -> None:  # noqa: FBT001 - a row of the table
    """RFC 9110, 12.5.1."""
    assert prefers_stream(", ".join(accept)) is wanted


@pytest.mark.parametrize(
    "headers", [[("Accept", SSE.upper())], [("Accept", JSON), ("accept", SSE)], [("Accept", f"{SSE};q=0")]]
)
async def test_a_post_is_answered_as_its_client_prefers(
    client: httpx.AsyncClient, headers: list[tuple[str, str]]
) -> None:
    """A stream, or the turn as JSON."""
    request = client.build_request("POST", "/v1/sessions/s/turns", json={"input": "hi"})
    request.headers = httpx.Headers(
        [(name, value) for name, value in request.headers.multi_items() if name != "accept"] + headers
    )
    answer = await client.send(request, stream=True)
    wanted = (202, JSON) if headers[0][1].endswith("q=0") else (200, SSE)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == wanted
    await answer.aclose()


async def test_a_slash_at_the_end_changes_nothing(client: httpx.AsyncClient) -> None:
    """No redirect: it would name a scheme and a host that the client may not know."""
    answer = await client.post("/v1/sessions/s/turns/", json={"input": "hi"})
    assert (answer.status_code, answer.json()["id"]) == (202, "s.1")
    for path in ("/v1/sessions/", "/v1/sessions/s/", "/v1/turns/s.1/", "/v1/pool/"):
        assert (await client.get(path)).status_code == 200
    for path in ("/v1/sessions//", "//v1/sessions", "/v1//sessions/"):
        assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/metrics/", "/healthz/", "/readyz/", "/docs/", "//metrics", "/"])
async def test_paths_without_a_key_have_one_spelling(client: httpx.AsyncClient, path: str) -> None:
    """A proxy that hides one of them knows no other."""
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/v1/sessions/s/turns", "/v1/sessions", "/chat/s"])
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate, identity", "identity, zstd"])
async def test_a_compressed_body_is_told(client: httpx.AsyncClient, path: str, encoding: str) -> None:
    """415 says what is."""
    body = gzip.compress(b'{"input": "hi"}')
    headers = {"Content-Type": JSON, "Content-Encoding": encoding}
    answer = await client.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_encoding")
    assert answer.headers["accept-encoding"] == "identity"


async def test_a_body_as_it_is_may_say_so(client: httpx.AsyncClient) -> None:
    """`identity` is no encoding."""
    headers = {"Content-Encoding": "Identity"}
    answer = await client.post("/v1/sessions/s/turns", json={"input": "hi"}, headers=headers)
    assert answer.status_code == 202


async def test_the_docs_load_nothing(client: httpx.AsyncClient) -> None:
    """One page with every call, and OpenAPI as JSON."""
    page = await client.get("/docs")
    assert page.status_code == 200
    assert not re.search(
        r"<script|<link|<img|<iframe|@import|url\(|https?://|//[a-z]", page.text, re.IGNORECASE
    )
    assert "default-src 'none'" in page.headers["content-security-policy"]
    schema = (await client.get("/openapi.json")).json()
    for path in schema["paths"]:
        assert path in page.text
    assert (await client.get("/redoc")).status_code == 404
    assert schema["components"]["schemas"]["TurnRequest"]["additionalProperties"] is False


async def test_methods_of_strangers_are_one_label(shared_api: ApiServer, client: httpx.AsyncClient) -> None:
    """501 for those that nothing here has, and no label of its own in the metrics."""
    for method in (b"PROPFIND", b"M-SEARCH", b"MKCALENDAR", b"SOURCE", b"TRACE", b"QUERY", b"LINK"):
        for path in (b"/v1/sessions", b"/nowhere", b"/healthz"):
            async with raw.connect(shared_api.port) as connection:
                await connection.send(method + b" " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = await connection.answer()
                assert (answer.status, answer.code) == (501, "method_not_implemented")
        said = (await client.get("/metrics")).text
        assert f'method="{method.decode()}"' not in said
    assert 'method="other"' in said


async def test_head_is_get_without_a_body(shared_api: ApiServer, client: httpx.AsyncClient) -> None:
    """Streams too: their client gets the head and nothing is followed."""
    await post(client)
    for path in ("/healthz", "/v1/sessions", "/v1/turns/s.1", "/v1/turns/s.1/events", "/nowhere"):
        head = await client.head(path)
        assert head.content == b""
        async with client.stream("GET", path) as got:
            assert head.status_code == got.status_code
            assert head.headers["content-type"] == got.headers["content-type"]

    async def is_none_open() -> bool:
        return 'turnpool_streams{pool="turnpool"} 0.0' in (await client.get("/metrics")).text

    await wait_until(is_none_open, 5)
    assert not shared_api.context.relay._channels


async def test_options_of_the_server_are_told(shared_api: ApiServer) -> None:
    """`OPTIONS *` is asked of the server, not of a path."""
    async with raw.connect(shared_api.port) as connection:
        await connection.send(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await connection.answer()
    assert answer.status == 204
    assert "GET" in answer.headers["allow"]


async def test_a_whole_request_may_be_sent_again_after_a_refusal(serve: Serve) -> None:
    """What is refused for its content leaves the connection as it was."""
    async with client_of(serve()) as client:
        for _ in range(2):
            assert (await client.post("/v1/sessions/s/turns", json={"input": 1})).status_code == 422
        assert (await post(client)).status_code == 202


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("nonsense", "nonsense"),
    ],
)
async def test_addresses_of_one_network_count_as_one(address: str, network: str) -> None:
    """Whoever has one IPv6 address has as many as they like."""
    assert network_of(address) == network
    connections = Connections(Settings(max_connections_per_address=1))
    slot = connections.admit(address)
    assert slot
    assert connections.admit(network.removesuffix("/64")) is None
    slot.release()
    slot.release()
    other = connections.admit(network.removesuffix("/64"))
    assert other
    assert connections.admit(address) is None
