"""A real API server in a thread of the test's process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI

from turnpool.settings import Settings
from turnpool_api.app import stop_streams
from turnpool_api.context import Context
from turnpool_api.http.listener import listen
from turnpool_api.server import BACKLOG, Server, _config

# Seconds to start or stop; both take milliseconds.
LONGEST = 20


class ApiServer(Server):
    """Serves as `turnpool-api` does, on a port that the system chooses, until `stop`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(_config(settings))
        self._sockets = listen(settings.host, 0, BACKLOG)
        self.port = self._sockets[0].getsockname()[1]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up = threading.Event()
        self._thread = threading.Thread(target=self.run, args=(self._sockets,), name="api", daemon=True)

    async def startup(self, sockets: Any = None) -> None:
        """Say that it serves."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._up.set()

    def start(self) -> None:
        """Return when it serves."""
        self._thread.start()
        assert self._up.wait(LONGEST)
        assert self.started

    def stop(self) -> None:
        """As a signal does, but without uvicorn's handler: what it sets is for the whole process."""
        if not self._thread.is_alive():
            return
        assert self._loop is not None
        self._loop.call_soon_threadsafe(stop_streams, self.app)
        self.should_exit = True
        self._thread.join(LONGEST)
        assert not self._thread.is_alive()

    @property
    def app(self) -> FastAPI:
        """The application."""
        app = self.config.app
        assert isinstance(app, FastAPI)
        return app

    @property
    def context(self) -> Context:
        """What its routes use."""
        context: Context = self.app.state.context
        return context

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(settings: Settings) -> Iterator[ApiServer]:
    """A server with these settings."""
    server = ApiServer(settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
