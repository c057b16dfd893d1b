"""Routes for those who run the pool."""

import asyncio
import ipaddress
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response, status
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError

from api.context import Context, CurrentContext, Tenant, same
from api.errors import ForbiddenError
from api.metrics import show_pool
from api.problems import problem
from api.schemas import PoolView, QueueView
from turnpool.models import QueueState

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
    """The process takes turns: Redis answers, and it does not drain."""
    if context.draining:
        return problem(request, 503, "draining", "This process is draining.")
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reachable = await context.store.reachable()
    except (RedisError, OSError):
        reachable = False
    if not reachable:
        return problem(request, 503, "redis_away", "Redis does not answer.")
    return PlainTextResponse("ok\n")


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(context: CurrentContext) -> Response:
    """Prometheus metrics: of this process, and of the pool as long as Redis answers."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            show_pool(await _queues(context), await context.store.workers(), context.settings)
    except (RedisError, OSError):
        show_pool([], [], context.settings)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


_bearer = HTTPBearer(auto_error=False, description="TURNPOOL_ADMIN_KEY.")


@router.post("/drain", status_code=status.HTTP_202_ACCEPTED)
async def drain(
    context: CurrentContext,
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> dict[str, bool]:
    """Take no more turns; open streams go on. From this machine, or with the admin key."""
    admin = context.settings.admin_key.get_secret_value()
    given = credentials.credentials if credentials else ""
    if not (admin and same(admin, given)) and not _from_loopback(request):
        raise ForbiddenError
    context.drain()
    return {"draining": True}


def _from_loopback(request: Request) -> bool:
    # A proxy on this machine passes on requests of others, a browser those of any web page; both say so.
    if request.client is None or {"x-forwarded-for", "forwarded", "origin"} & set(request.headers):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
