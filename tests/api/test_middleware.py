"""What a stream holds of its request, and what is said of one that breaks."""

import pytest
from starlette.types import Message, Receive, Scope, Send

from turnpool.settings import Settings
from turnpool_api.http.bodies import Bodies
from turnpool_api.http.requests import Requests
from turnpool_api.http.state import state_of

pytestmark = pytest.mark.anyio


class Stream:
    """As a FrameResponse; sees what is held while it is sent."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.held: list[bytes] = []

    async def send_all(self, receive: Receive, send: Send) -> None:
        """Look."""
        del receive, send
        self.held.append(state_of(self._scope).body)


async def test_the_body_of_a_post_is_not_kept_with_its_stream() -> None:
    """The route has it whole; a stream may last for minutes, and there may be thousands."""
    seen: list[bytes] = []
    streams: list[Stream] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        seen.append(state_of(scope).body)
        streams.append(Stream(scope))
        state_of(scope).streams.extend(streams)  # type: ignore[arg-type]

    async def receive() -> Message:
        return {"type": "http.request", "body": b"a body", "more_body": False}

    async def send(message: Message) -> None:
        del message

    headers = [(b"content-length", b"6")]
    scope = {"type": "http", "method": "POST", "path": "/v1/sessions/s/turns", "headers": headers}
    await Requests(Bodies(app, Settings()))(scope, receive, send)
    assert seen == [b"a body"]
    assert [stream.held for stream in streams] == [[b""]]


async def test_a_stream_that_breaks_is_told_with_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    """Its error goes on to the server, which breaks off the answer."""

    class Broken(Stream):
        async def send_all(self, receive: Receive, send: Send) -> None:
            del receive, send
            raise RuntimeError

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        state_of(scope).streams.append(Broken(scope))  # type: ignore[arg-type]

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        del message

    scope = {"type": "http", "method": "GET", "path": "/v1/s", "headers": [(b"x-request-id", b"mine")]}
    with pytest.raises(RuntimeError):
        await Requests(app)(scope, receive, send)
    said = capsys.readouterr()
    assert "request_failed" in said.out + said.err
    assert "mine" in said.out + said.err
