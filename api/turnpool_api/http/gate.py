"""How many posts of turns are under way at once."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Up to the start of their streams: enough to fill a pipeline to Redis.
SUBMITS_AT_ONCE = 64


class Gate:
    """Middleware: lets some posts of turns through at a time.

    On one event loop all posts of a burst would go in step, so that each gets its answer when all do. So the
    first turns run while the last still wait. Bodies are read outside: no slow client may hold a place.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._places = asyncio.Semaphore(SUBMITS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if not (scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith("/turns")):
            await self.app(scope, receive, send)
            return
        await self._places.acquire()
        is_inside = True

        def leave() -> None:
            nonlocal is_inside
            if is_inside:
                is_inside = False
                self._places.release()

        async def send_outside(message: Message) -> None:
            # Nor may a client that reads slowly.
            leave()
            await send(message)

        try:
            await self.app(scope, receive, send_outside)
        finally:
            leave()
