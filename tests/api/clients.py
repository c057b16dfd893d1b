"""HTTP clients of a test's server."""

import ssl

import httpx

from tests.api.server import ApiServer

# Of one's own, each client would read the system's certificates, for 50 ms.
TLS = ssl.create_default_context()


def client_of(server: ApiServer, key: str | None = None) -> httpx.AsyncClient:
    """A client with room for many streams; it waits 10 s for any answer."""
    return httpx.AsyncClient(
        base_url=server.url,
        timeout=10,
        verify=TLS,
        limits=httpx.Limits(max_connections=None),
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )


async def post(client: httpx.AsyncClient, session: str = "s", **fields: object) -> httpx.Response:
    """Post a turn with this body; it has some input if none is given."""
    return await client.post(f"/v1/sessions/{session}/turns", json={"input": "hi"} | fields)
