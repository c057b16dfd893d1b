"""Keeps other sites' pages away from an API without keys.

Such an API trusts whoever reaches it, and a browser reaches it for any page that it shows: under a name of
the page's own that suddenly means this machine (DNS rebinding), or by a plain cross-site request.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from turnpool.exposure import is_ip_address, is_loopback_address
from turnpool_api.http.errors import CrossSiteError, HostNotAllowedError

HOST = re.compile(rb"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]*)?")
# Hosts whose check is remembered, and characters of one: clients use few, an attacker any number.
MAX_REMEMBERED, MAX_LENGTH = 256, 255
# What a browser says of requests that no other page has caused.
OWN_SITES = {b"same-origin", b"none"}


class LocalOnly:
    """ASGI middleware: refuses requests under foreign names, and those of other sites' pages.

    `names`: more names it is called by; `*.name` stands for all below, `*` for any. `is_open`: other
    machines may call it, by any IP address: a page cannot make an address mean another machine.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], *, is_open: bool) -> None:
        self.app = app
        self._names = {name.strip("[]") for name in names if not name.startswith("*")}
        self._suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        self._any = "*" in names
        self._is_open = is_open
        self._is_allowed = lru_cache(MAX_REMEMBERED)(self._may_be_called)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises HostNotAllowedError, CrossSiteError."""
        if scope["type"] == "http":
            self._check(scope)
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value.lower() for name, value in headers if name == b"host"]
        if not all(len(host) <= MAX_LENGTH and self._is_allowed(host) for host in hosts):
            raise HostNotAllowedError
        sites = {value for name, value in headers if name == b"sec-fetch-site"}
        origins = [value for name, value in headers if name == b"origin"]
        if not sites <= OWN_SITES or not all(self._is_own(origin, hosts, sites) for origin in origins):
            raise CrossSiteError

    def _is_own(self, origin: bytes, hosts: list[bytes], sites: set[bytes]) -> bool:
        try:
            place = urlsplit(origin[:MAX_LENGTH].decode("ascii")).netloc.encode()
        except ValueError:
            return False
        # A development server passes on the requests of its own pages, which the browser vouches for.
        return place in hosts or (b"same-origin" in sites and self._is_allowed(place))

    def _may_be_called(self, host: bytes) -> bool:
        """Whether this is a name of the API."""
        match = HOST.fullmatch(host)
        if not match:
            return False
        name = match["name"].decode().strip("[]").removesuffix(".")
        return (
            self._any
            or name == "localhost"
            or name in self._names
            or name.endswith(self._suffixes)
            or is_loopback_address(name)
            or (self._is_open and is_ip_address(name))
        )
