"""HTTP clients of a test's server."""

import httpx

from tests.api.server import ApiServer


def client_of(server: ApiServer, key: str | None = None) -> httpx.AsyncClient:
    """A client with room for many streams; it waits 10 s for any answer."""
    return httpx.AsyncClient(
        base_url=server.url,
        timeout=10,
        limits=httpx.Limits(max_connections=None),
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )


async def post(client: httpx.AsyncClient, session: str = "s", **fields: object) -> httpx.Response:
    """Post a turn with this body; it has some input if none is given."""
    return await client.post(f"/v1/sessions/{session}/turns", json={"input": "hi"} | fields)
