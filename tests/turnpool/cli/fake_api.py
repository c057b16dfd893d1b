"""A small real HTTP server that answers from a script: its connections end in real ways."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


class FakeApi(ThreadingHTTPServer):
    """Gives the answers of its script, one a request; the last one again and again."""

    daemon_threads = True

    def __init__(self, *script: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[Any] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away; tests make them."""

    def headers(self, name: str) -> list[str | None]:
        """One header of all requests."""
        return [headers.get(name.lower()) for _, _, headers in self.seen]


class Handler(BaseHTTPRequestHandler):
    """Notes the request and gives the next answer."""

    server: FakeApi

    def do_GET(self) -> None:
        """Answer a GET."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.command, self.path, headers))
        length = int(headers.get("content-length", 0))
        self.server.bodies.append(json.loads(self.rfile.read(length)) if length else None)
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    do_POST = do_GET  # noqa: N815 - the base class's name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - same
        """Keep the tests' output clean."""

    def send_json(self, status: int, body: Any, **headers: str) -> None:
        """Send a whole answer."""
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


def answer(status: int, body: Any, **headers: str) -> Answer:
    """Answer with JSON."""
    return lambda handler: handler.send_json(status, body, **headers)


def accepted(turn_id: str = "s.1") -> Answer:
    """Accept a turn."""
    return answer(202, {"id": turn_id}, Location=f"/v1/turns/{turn_id}")


def stream(*events: dict[str, Any], then: Callable[[], object] = lambda: None) -> Answer:
    """Stream events, do `then`, and cut the connection."""

    def give(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        # Chunked and never ended: the client must take it for a loss.
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for frame in (b"retry: 1000\n\n", *map(as_frame, events)):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(frame), frame))
            handler.wfile.flush()
        then()
        handler.close_connection = True

    return give


def as_frame(event: dict[str, Any]) -> bytes:
    """Write an event the way the API does."""
    return f"id: {event['seq']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def event(seq: int, kind: str, **fields: Any) -> dict[str, Any]:
    """Make an event."""
    return {"type": f"turn.{kind}", "seq": seq, "turn_id": "s.1", "attempt": 1, **fields}


def delta(seq: int, text: str) -> dict[str, Any]:
    """Make an event with text."""
    return event(seq, "output_text.delta", text=text)


@contextmanager
def serving(*script: Answer) -> Iterator[FakeApi]:
    """Serve a script on a port that the system chooses."""
    with FakeApi(*script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
