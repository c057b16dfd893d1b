"""What routes need: settings, store, relay, the caller's tenant.

Dependencies are coroutines even where they await nothing: FastAPI runs plain functions in threads.
"""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from turnpool.settings import Settings
from turnpool.store.store import Store
from turnpool.store.wakeups import WakeUps
from turnpool_api.http.errors import UnauthorizedError
from turnpool_api.http.retry_after import RetryAfter
from turnpool_api.http.state import state_of
from turnpool_api.rights import Rights
from turnpool_api.streams.relay import Relay
from turnpool_api.streams.waits import Waits


@dataclass
class Context:
    """One per process."""

    settings: Settings
    store: Store
    relay: Relay
    wakeups: WakeUps
    rights: Rights
    waits: Waits = field(default_factory=Waits)
    draining: bool = False
    # Whether SIGTERM has come.
    ending: bool = False
    # Whether Redis has answered since the process started.
    reached_redis: bool = False
    retry_after: RetryAfter = field(default_factory=RetryAfter)

    def drain(self, ends_in: float | None = None) -> None:
        """Take no more turns. `ends_in`: seconds until the process ends, if it does."""
        self.draining = True
        if ends_in is not None:
            self.retry_after.ends_in(ends_in)


async def context_of(request: Request) -> Context:
    """The process's context."""
    context: Context = request.app.state.context
    return context


CurrentContext = Annotated[Context, Depends(context_of)]

_bearer = HTTPBearer(auto_error=False, description="A tenant's key; none where TURNPOOL_API_KEYS is empty.")


async def tenant_of(
    request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """The caller's tenant, whose key was checked before the body was read. Raises UnauthorizedError."""
    tenant = state_of(request.scope).tenant
    if tenant is None:
        raise UnauthorizedError
    return tenant


Tenant = Annotated[str, Depends(tenant_of)]
