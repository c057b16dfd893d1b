"""The SSE response."""

from collections.abc import AsyncIterator

from anyio import Event
from fastapi.responses import Response
from sse_starlette import EventSourceResponse

# Seconds a stream gets to say good-bye on SIGTERM; it takes one write.
FAREWELL_SECONDS = 3.0


def sse(frames: AsyncIterator[bytes], headers: dict[str, str] | None = None) -> Response:
    """A stream of ready frames. Pings are the stream's own, since it knows when it is silent."""
    return EventSourceResponse(
        frames,
        headers=headers,
        sep="\n",
        ping=0,
        # Lets the streams end by themselves (Relay.close) instead of being cut.
        shutdown_event=Event(),
        shutdown_grace_period=FAREWELL_SECONDS,
    )
