"""Who can reach an API, and whether its keys fit that."""

import ipaddress
import os
import socket

from turnpool.errors import SettingsError
from turnpool.settings import Settings


def check_exposure(settings: Settings, host: str) -> None:
    """Refuse an API without keys that other machines can reach, unless it is meant. Raises SettingsError."""
    if settings.tenant_keys or settings.open:
        return
    if "TURNPOOL_API_KEY" in os.environ:
        raise SettingsError(
            "TURNPOOL_API_KEY: this is the key that a client sends; the keys of an API are "
            "TURNPOOL_API_KEYS=tenant:key. Set them, or TURNPOOL_OPEN=true to serve without keys"
        )
    if not is_loopback(host):
        raise SettingsError(
            f"TURNPOOL_API_KEYS: none are set, and at TURNPOOL_HOST={host} other machines may reach the API. "
            "Set tenant:key, or TURNPOOL_OPEN=true to serve all who reach it"
        )


def is_loopback(host: str) -> bool:
    """Whether a listener at this host serves its own machine only; the empty host is all addresses."""
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return all(is_loopback_address(str(address[0])) for *_, address in found)


def is_ip_address(text: str) -> bool:
    """Whether this is an IP address and no name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback_address(address: str) -> bool:
    """Whether this is an IP address of the loopback interface."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
