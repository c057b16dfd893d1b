"""State of one request, shared by the middleware and the routes."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import Scope

if TYPE_CHECKING:
    from api.sse import FrameResponse

_KEY = "turnpool.request"


@dataclass(slots=True)
class RequestState:
    """What is known of a request so far."""

    id: str
    headers: Headers
    is_body_pending: bool
    """Whether the client may still be sending a body that nobody has read."""
    body: bytes = b""
    tenant: str | None = None
    """None until a valid key was found."""
    streams: "list[FrameResponse]" = field(default_factory=list)
    """A route leaves its stream here; it is sent when FastAPI is done."""

    def attach(self, scope: Scope) -> None:
        """Make it the state of this request."""
        scope[_KEY] = self
        scope["request_id"] = self.id


def state_of(scope: Scope) -> RequestState:
    """The state that `Requests` attached."""
    state: RequestState = scope[_KEY]
    return state


def has_body(headers: Headers) -> bool:
    """Whether the head announces a body."""
    return "transfer-encoding" in headers or headers.get("content-length", "0").strip("0") != ""
