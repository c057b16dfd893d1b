"""The ASGI application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version

from fastapi import FastAPI
from starlette.types import ASGIApp

from turnpool.logs import get_logger
from turnpool.metrics import watch
from turnpool.redis.connections import connect
from turnpool.settings import Settings
from turnpool.store.membership import Membership
from turnpool.store.store import Store
from turnpool.store.wakeups import WakeUps
from turnpool_api.context import Context
from turnpool_api.http.admission import Admission
from turnpool_api.http.bodies import Bodies
from turnpool_api.http.gate import Gate
from turnpool_api.http.local import LocalOnly
from turnpool_api.http.problems import add_handlers
from turnpool_api.http.requests import Requests
from turnpool_api.rights import Rights
from turnpool_api.routes import chat, docs, events, operations, sessions, turns
from turnpool_api.routes.posts import QuickPosts
from turnpool_api.streams.relay import Relay
from turnpool_api.streams.tasks import end
from turnpool_api.upkeep import expire_turns, measure_queues, top_up

log = get_logger(__name__)


class Api(FastAPI):
    """With middleware of ours around FastAPI's own: a stream's pieces pass through none of those."""

    def build_middleware_stack(self) -> ASGIApp:
        """All that a request passes through, the outermost first."""
        settings: Settings = self.state.settings
        routes = QuickPosts(super().build_middleware_stack())
        app: ASGIApp = Admission(Bodies(Gate(routes), settings))
        if not settings.tenant_keys:
            app = LocalOnly(app, names=settings.allowed_host_names, is_open=settings.open)
        return Requests(app)


def create_app(settings: Settings) -> FastAPI:
    """An application for one process."""
    app = Api(
        title="turnpool",
        summary="Runs the turns of AI agents on a worker pool.",
        version=version("turnpool"),
        lifespan=_lifespan,
        # Its pages load scripts from elsewhere; ours is turnpool_api.docs.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    add_handlers(app)
    for module in (turns, events, sessions, chat, operations, docs):
        app.include_router(module.router)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    if settings.open and not settings.tenant_keys:
        log.warning("api_open", host=settings.host, advice="set TURNPOOL_API_KEYS")
    store = Store.connect(settings)
    relay = Relay(store)
    broker = connect(settings.broker)
    wakeups = WakeUps(broker, settings.namespace)
    rights = Rights(settings, store.nodes, broker)
    app.state.context = Context(settings, store, relay, wakeups, rights)
    tasks = [
        asyncio.create_task(relay.run(), name="relay"),
        asyncio.create_task(expire_turns(app.state.context), name="expiry"),
        asyncio.create_task(top_up(app.state.context), name="top up"),
        asyncio.create_task(measure_queues(app.state.context), name="measure queues"),
        asyncio.create_task(watch(store), name="watch"),
        asyncio.create_task(Membership(settings).stay(), name="membership"),
    ]
    try:
        yield
    finally:
        await end(tasks)
        await relay.end()
        await wakeups.close()
        await store.close()


def stop_streams(app: FastAPI) -> None:
    """Stop being ready and end every stream; a second call ends the calls that wait as well.

    Safe in a signal handler.
    """
    context: Context | None = getattr(app.state, "context", None)
    if not context:
        return
    spared = set() if context.ending else context.waits.subscriptions
    context.ending = True
    context.drain(context.settings.api_drain_seconds)
    asyncio.get_running_loop().call_soon_threadsafe(context.relay.close, spared)


async def finish_waits(app: FastAPI) -> None:
    """Give calls that wait for a turn TURNPOOL_API_DRAIN_SECONDS, then have them answered as things are."""
    context: Context | None = getattr(app.state, "context", None)
    if not context:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(context.settings.api_drain_seconds):
            await context.waits.ended()
    context.relay.close()
