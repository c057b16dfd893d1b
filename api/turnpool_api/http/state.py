"""State of one request, shared by the middleware and the routes."""

from dataclasses import dataclass, field
from typing import Protocol

from starlette.types import Receive, Scope, Send

_KEY = "turnpool.request"


class Stream(Protocol):
    """An answer that outlives its route."""

    async def send_all(self, receive: Receive, send: Send) -> None:
        """Send it until it ends or its client goes."""

    async def send_head(self, send: Send) -> None:
        """Send the answer to HEAD."""


@dataclass(slots=True)
class RequestState:
    """What is known of a request so far."""

    id: str
    headers: dict[str, str]
    """Names in lower case; lines of the same name are one, as RFC 9110, 5.3 has it."""
    is_body_pending: bool
    """Whether the client may still be sending a body that nobody has read."""
    body: bytes = b""
    tenant: str | None = None
    """None until a valid key was found."""
    streams: list[Stream] = field(default_factory=list)
    """A route leaves its stream here; it is sent when FastAPI is done."""

    def attach(self, scope: Scope) -> None:
        """Make it the state of this request."""
        scope[_KEY] = self
        scope["request_id"] = self.id


def state_of(scope: Scope) -> RequestState:
    """The state that `Requests` attached."""
    state: RequestState = scope[_KEY]
    return state


def combine(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers of an ASGI scope by name."""
    found: dict[str, str] = {}
    for raw_name, value in headers:
        name = raw_name.decode("latin-1")
        line = value.decode("latin-1")
        found[name] = f"{found[name]}, {line}" if name in found else line
    return found


def has_body(headers: dict[str, str]) -> bool:
    """Whether the head announces a body."""
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""
