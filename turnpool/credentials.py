"""Secrets among the settings: one that is set but empty or unusable is refused, never taken for none."""

import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr

TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")


def _filled(value: SecretStr) -> SecretStr:
    """The secret without blanks around it, which come with files. Raises ValueError if nothing is left."""
    text = value.get_secret_value().strip()
    if not text:
        raise ValueError("it is set but empty; give it a value, or do not set it")
    return SecretStr(text)


def _sendable(value: SecretStr) -> SecretStr:
    if not _is_sendable(value.get_secret_value()):
        raise ValueError("it must be printable ASCII without blanks, for an HTTP header")
    return value


def _tenants(value: SecretStr) -> SecretStr:
    tenants_by_key(value.get_secret_value())
    return value


Secret = Annotated[SecretStr, AfterValidator(_filled)]
HttpSecret = Annotated[Secret, AfterValidator(_sendable)]
ApiKeys = Annotated[Secret, AfterValidator(_tenants)]


def tenants_by_key(text: str) -> dict[str, str]:
    """Read `tenant:key,tenant:key`; a key may hold colons but no comma. Raises ValueError without secrets."""
    tenants: dict[str, str] = {}
    for n, entry in enumerate(text.split(","), start=1):
        if not entry.strip():
            continue
        tenant, _, key = (part.strip() for part in entry.partition(":"))
        # No text of the entry is shown: whoever swaps the parts has the key first.
        if not TENANT.fullmatch(tenant) or not key:
            msg = f"entry {n}: each must be tenant:key, the tenant 1 to 64 letters, digits, '_' or '-'"
            raise ValueError(msg)
        if not _is_sendable(key):
            msg = f"entry {n}: a key must be printable ASCII without blanks, for an HTTP header"
            raise ValueError(msg)
        if tenants.setdefault(key, tenant) != tenant:
            msg = f"entry {n}: its key is another tenant's too; give each tenant a key of its own"
            raise ValueError(msg)
    if not tenants:
        raise ValueError("it is set but has no key; give it tenant:key, or do not set it")
    return tenants


def _is_sendable(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
