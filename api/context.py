"""What routes need: settings, store, relay, the caller's tenant.

Dependencies are coroutines even where they await nothing: FastAPI runs plain functions in threads.
"""

import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.errors import UnauthorizedError
from api.relay import Relay
from api.rights import Rights
from turnpool.settings import DEFAULT_TENANT, Settings
from turnpool.store import Store
from turnpool.wakeups import WakeUps


@dataclass
class Context:
    """One per process."""

    settings: Settings
    store: Store
    relay: Relay
    wakeups: WakeUps
    rights: Rights
    draining: bool = False

    def drain(self) -> None:
        """Take no more turns."""
        self.draining = True


async def context_of(request: Request) -> Context:
    """The process's context."""
    context: Context = request.app.state.context
    return context


CurrentContext = Annotated[Context, Depends(context_of)]

_bearer = HTTPBearer(auto_error=False, description="A tenant's key; none where TURNPOOL_API_KEYS is empty.")


async def tenant_of(
    context: CurrentContext, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """The caller's tenant. Raises UnauthorizedError."""
    return tenant_by(context, credentials.credentials if credentials else "")


def tenant_by(context: Context, given: str) -> str:
    """The tenant whose key is given. Raises UnauthorizedError."""
    tenants = context.settings.tenant_keys
    if not tenants:
        return DEFAULT_TENANT
    # Every key is compared, in constant time, so that the answer's time tells nothing.
    found = [tenant for key, tenant in tenants.items() if same(key, given)]
    if not found:
        raise UnauthorizedError
    return found[0]


def same(secret: str, given: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(secret.encode(), given.encode())


Tenant = Annotated[str, Depends(tenant_of)]
