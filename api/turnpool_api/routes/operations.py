"""Routes for those who run the pool."""

import asyncio
import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response, status
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from turnpool.errors import StoreAwayError
from turnpool.exposition import PoolMetrics
from turnpool.exposure import is_loopback_address
from turnpool.models import QueueState
from turnpool.settings import Settings
from turnpool_api.context import Context, CurrentContext, Tenant
from turnpool_api.http.credentials import secrets_equal
from turnpool_api.http.errors import ForbiddenError
from turnpool_api.http.problems import problem
from turnpool_api.metrics import show_pool
from turnpool_api.routes.schemas import PoolView, QueueView

router = APIRouter(tags=["operations"])

# Seconds Redis gets to answer a probe; Kubernetes gives a probe one second by default.
PROBE_SECONDS = 0.8


@router.get("/v1/pool")
async def pool(context: CurrentContext, _: Tenant) -> PoolView:
    """What waits, what runs, and on which workers."""
    queues, workers = await _queues(context), await context.store.workers()
    return PoolView(
        queued=sum(queue.queued for queue in queues),
        running=sum(queue.running for queue in queues),
        oldest_wait_seconds=max(queue.oldest_wait_seconds for queue in queues),
        queues=[QueueView.of(queue, workers) for queue in queues],
        workers=workers,
    )


async def _queues(context: Context) -> list[QueueState]:
    return [await context.store.queue_state(queue) for queue in context.settings.all_queues]


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """The process lives."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse)
async def readyz(context: CurrentContext, request: Request) -> Response:
    """Whether requests should be sent here: Redis has answered once since the start, and it does not drain.

    While Redis is away later, every process of the pool is without it: those that stay ready answer
    503 with Retry-After, where a balancer without any could only refuse connections. A right that was taken
    from turnpool's user makes it unready: turns would be accepted and never run.
    """
    if context.draining:
        seconds = context.retry_after.draining()
        return problem(request, 503, "draining", "This process is draining.", retry_after=seconds)
    reachable = await _reaches_redis(context)
    context.reached_redis |= reachable
    if not context.reached_redis:
        return problem(request, 503, "redis_away", "Redis has not answered since this process started.")
    if refusal := await context.rights.find_refusal():
        return problem(request, 503, "redis_refuses", f"Redis refuses: {refusal}.")
    return PlainTextResponse("ok\n" if reachable else "ready, but Redis does not answer now\n")


async def _reaches_redis(context: Context) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await context.store.reachable()
    except (StoreAwayError, TimeoutError):
        return False


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(context: CurrentContext) -> Response:
    """Prometheus metrics: of this process, and of the pool as long as Redis answers."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            show_pool(await _queues(context), await context.store.workers(), context.settings)
    except (StoreAwayError, TimeoutError):
        show_pool([], [], context.settings)
    return Response(generate_latest(PoolMetrics(context.settings.namespace)), media_type=CONTENT_TYPE_LATEST)


# What proxies add. Nothing tells all of them: that is why keys, where there are any, are always asked for.
PROXY_HEADER = re.compile(
    r"forwarded|via|origin|cdn-loop|.*client-ip|(x-(forwarded|real|client|cluster|envoy|original)|cf|sec-fetch)-.*"
)

_bearer = HTTPBearer(auto_error=False, description="TURNPOOL_ADMIN_KEY.")


@router.post("/drain", status_code=status.HTTP_202_ACCEPTED)
async def drain(
    context: CurrentContext,
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> dict[str, bool]:
    """Take no more turns; open streams go on. With the admin key, or, without any keys, from this machine."""
    _check_drain(context.settings, request, credentials.credentials if credentials else "")
    context.drain()
    return {"draining": True}


def _check_drain(settings: Settings, request: Request, given: str) -> None:
    """Raise ForbiddenError for a caller that may not drain."""
    if settings.admin_key:
        if not secrets_equal(settings.admin_key.get_secret_value(), given):
            raise ForbiddenError("Send the admin key: Authorization: Bearer <TURNPOOL_ADMIN_KEY>.")
    elif settings.tenant_keys:
        raise ForbiddenError("No admin key is set. Set TURNPOOL_ADMIN_KEY and send it, or send SIGTERM.")
    elif not _from_loopback(request):
        raise ForbiddenError(
            "Without keys only a caller on this machine may do this, and not through a proxy. "
            "Set TURNPOOL_ADMIN_KEY and send it, or send SIGTERM."
        )


def _from_loopback(request: Request) -> bool:
    # A proxy on this machine passes on requests of others, and a browser those of any web page.
    is_proxied = request.scope["http_version"] == "1.0" or any(
        PROXY_HEADER.fullmatch(name) for name in request.headers
    )
    return not is_proxied and request.client is not None and is_loopback_address(request.client.host)
