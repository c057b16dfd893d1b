"""The ASGI application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import FastAPI
from starlette.types import ASGIApp

from api import chat, events, operations, sessions, turns
from api.context import Context
from api.middleware import RequestMiddleware
from api.posts import QuickPosts
from api.problems import add_handlers
from api.relay import Relay
from api.rights import Rights
from api.tasks import end
from api.upkeep import expire_turns, top_up
from turnpool.metrics import watch
from turnpool.redis import connect
from turnpool.settings import Settings
from turnpool.store import Store
from turnpool.wakeups import WakeUps


class Api(FastAPI):
    """With `RequestMiddleware` around FastAPI's own: a stream's pieces pass through none of those."""

    def build_middleware_stack(self) -> ASGIApp:
        """All that a request passes through."""
        return RequestMiddleware(super().build_middleware_stack(), self.state.settings.max_input_bytes)


def create_app(settings: Settings) -> FastAPI:
    """An application for one process."""
    app = Api(
        title="turnpool",
        summary="Runs the turns of AI agents on a worker pool.",
        version=version("turnpool"),
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.add_middleware(QuickPosts)
    add_handlers(app)
    for module in (turns, events, sessions, chat, operations):
        app.include_router(module.router)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    store = Store.connect(settings)
    relay = Relay(store)
    broker = connect(settings.broker)
    wakeups = WakeUps(broker)
    rights = Rights(settings, store.nodes, broker)
    app.state.context = Context(settings, store, relay, wakeups, rights)
    tasks = [
        asyncio.create_task(relay.run(), name="relay"),
        asyncio.create_task(expire_turns(app.state.context), name="expiry"),
        asyncio.create_task(top_up(app.state.context), name="top up"),
        asyncio.create_task(watch(store), name="watch"),
    ]
    try:
        yield
    finally:
        await end(tasks)
        await relay.end()
        await wakeups.close()
        await store.close()


def stop_streams(app: FastAPI) -> None:
    """Not ready any more, and every stream ends. Safe in a signal handler."""
    context: Context | None = getattr(app.state, "context", None)
    if context:
        context.drain()
        asyncio.get_running_loop().call_soon_threadsafe(context.relay.close)
