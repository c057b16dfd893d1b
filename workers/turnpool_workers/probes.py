"""A worker's HTTP port: `/healthz`, `/readyz` and Prometheus' `/metrics`.

In a thread with a loop of its own, so that probes answer while agents block the worker's loop, and no
number of them delays a lease.
"""

import asyncio
import socket
import threading
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application, RequestHandler

from turnpool.errors import SettingsError
from turnpool.exposition import PoolMetrics
from turnpool_workers.health import Health

# Probes and two scrapers need a handful.
MAX_CONNECTIONS = 64
MAX_HEADER_BYTES = 16 * 1024
# For a head, and between two requests of a connection.
IDLE_SECONDS = 30


class Server(HTTPServer):
    """Tornado's server, with a limit on connections: those beyond it are closed at once."""

    _open = 0

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Take a connection."""
        if self._open >= MAX_CONNECTIONS:
            stream.close()
            return
        self._open += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        """A connection has ended."""
        self._open -= 1
        super().on_close(server_conn)


class _Plain(RequestHandler):
    """Answers in plain text and says nothing of the server."""

    def initialize(self, health: Health) -> None:
        self.health = health

    def set_default_headers(self) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.clear_header("Server")

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish(f"{status_code}\n")

    def answer(self, problem: str) -> None:
        """200, or 503 with the reason."""
        if problem:
            self.set_status(503)
        self.finish(f"{problem or 'ok'}\n")


class NotFound(_Plain):
    """Any other path."""

    def prepare(self) -> None:
        """Answer whatever the method."""
        self.send_error(404)


class Healthz(_Plain):
    """Liveness."""

    def get(self) -> None:
        """Whether the loop beats."""
        self.answer(self.health.ill())


class Readyz(_Plain):
    """Readiness."""

    def get(self) -> None:
        """Whether the worker takes turns."""
        self.answer(self.health.unready())


class Metrics(RequestHandler):
    """Prometheus' metrics."""

    def initialize(self, registry: PoolMetrics) -> None:
        """Called by Tornado for each request."""
        self.registry = registry

    def get(self) -> None:
        """All of this process."""
        self.clear_header("Server")
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(self.registry))


def serve_probes(host: str, port: int, health: Health, registry: PoolMetrics) -> None:
    """Serve until the process ends. Raises SettingsError if the port cannot be used."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except OSError as error:
        raise SettingsError(
            f"TURNPOOL_METRICS_PORT: port {port} cannot be used ({error.strerror}); "
            "choose another, or 0 for none"
        ) from error
    listening.settimeout(0)
    routes: list[Any] = [
        ("/healthz", Healthz, {"health": health}),
        ("/readyz", Readyz, {"health": health}),
        ("/metrics", Metrics, {"registry": registry}),
    ]

    async def serve() -> None:
        server = Server(
            Application(
                routes,
                default_handler_class=NotFound,
                default_handler_args={"health": health},
                log_function=lambda _: None,
            ),
            max_header_size=MAX_HEADER_BYTES,
            max_body_size=0,
            idle_connection_timeout=IDLE_SECONDS,
            body_timeout=IDLE_SECONDS,
        )
        server.add_sockets([listening])
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(serve()), name="turnpool-probes", daemon=True).start()
