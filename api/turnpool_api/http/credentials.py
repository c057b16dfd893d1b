"""Keys of requests: how they are sent, and whose they are."""

import hmac

from fastapi.security.utils import get_authorization_scheme_param

from turnpool.settings import DEFAULT_TENANT, Settings
from turnpool_api.http.errors import UnauthorizedError


def bearer_key(headers: dict[str, str]) -> str:
    """The key of `Authorization: Bearer <key>`, or ''."""
    scheme, key = get_authorization_scheme_param(headers.get("authorization"))
    return key if scheme.lower() == "bearer" else ""


def tenant_with(key: str, settings: Settings) -> str:
    """The tenant whose key it is. Raises UnauthorizedError."""
    tenants = settings.tenant_keys
    if not tenants:
        return DEFAULT_TENANT
    # Every key is compared, in constant time, so that the answer's time tells nothing.
    found = [tenant for known, tenant in tenants.items() if secrets_equal(known, key)]
    if not found:
        raise UnauthorizedError
    return found[0]


def secrets_equal(secret: str, given: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(secret.encode(), given.encode())
