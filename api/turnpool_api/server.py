"""The web process: uvicorn on our listener, with streams that say good-bye."""

import asyncio
import os
import signal
import socket
import sys
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from turnpool import tracing
from turnpool.collector import tune_garbage_collector
from turnpool.exposure import check_exposure
from turnpool.logs import configure, get_logger
from turnpool.redis.access import Role
from turnpool.settings import Settings, exit_on_settings_error, load_settings, warn_of_unknown_settings
from turnpool.store.membership import Membership
from turnpool.store.startup import check
from turnpool_api.app import create_app, finish_waits, stop_streams
from turnpool_api.http.connections import Connections, Slot
from turnpool_api.http.listener import Listener, listen
from turnpool_api.http.protocol import Protocol
from turnpool_api.streams.tasks import end

log = get_logger(__name__)

# Seconds open requests get after SIGTERM; streams end at once by themselves.
GRACE_SECONDS = 10
# Connections the kernel keeps until they are accepted: a burst of clients must not be refused.
BACKLOG = 4096


class Server(uvicorn.Server):
    """On a signal the streams say good-bye, so that their clients go on elsewhere."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve what `listen` gave, and say where; with port 0 the system has chosen."""
        assert sockets  # noqa: S101 - from main
        # It is not to listen itself: see Listener.
        await super().startup([])
        assert isinstance(self.config.app, FastAPI)  # noqa: S101 - from main
        self._connections = Connections(self.config.app.state.settings)
        self._watch = asyncio.create_task(self._connections.watch(), name="connections")
        self.servers = [cast("asyncio.Server", Listener(self._protocol, sockets, self._connections))]
        host, port = sockets[0].getsockname()[:2]
        log.info("api_started", host=host, port=port)

    def _protocol(self, slot: Slot) -> asyncio.Protocol:
        return Protocol(self.config, self.server_state, self.lifespan.state, self._connections, slot)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Not ready any more, no new streams, the open ones end."""
        app = self.config.app
        if isinstance(app, FastAPI):
            stop_streams(app)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let calls that wait for a turn end; then as the class's own, whose grace time is the streams'."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        app = self.config.app
        if isinstance(app, FastAPI):
            await finish_waits(app)
        await super().shutdown(sockets)
        await end([self._watch])


def serve() -> None:
    """Serve until SIGTERM or SIGINT; exit 0."""
    server: Server | None = None

    def end_early(*_: object) -> None:
        # uvicorn raises the signal again when it is done, for who started it; here nobody waits for that.
        if not (server and server.started):
            # Not sys.exit: the task that runs just now would have it. Nothing runs yet that has to be closed.
            os._exit(0)

    signal.signal(signal.SIGTERM, end_early)
    signal.signal(signal.SIGINT, end_early)
    settings = load_settings()
    configure(settings.log_level, "api")
    if settings.tracing:
        with exit_on_settings_error():
            tracing.setup("turnpool-api")
    warn_of_unknown_settings()
    with exit_on_settings_error():
        check_exposure(settings, settings.host)
        asyncio.run(check(settings, Role.API))
        asyncio.run(Membership(settings).enter())
        sockets = listen(settings.host, settings.port, BACKLOG)
    server = Server(_config(settings))
    tune_garbage_collector()
    server.run(sockets)
    sys.exit(0 if server.started else 1)


def _config(settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(settings),
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=settings.keep_alive_seconds,
        # Who calls from loopback must not be able to name another address (POST /drain).
        proxy_headers=False,
    )
