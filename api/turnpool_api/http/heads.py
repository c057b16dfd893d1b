"""Checks of a request's head that llhttp leaves to its callers."""

import httptools

from turnpool_api.http import refusals
from turnpool_api.http.refusals import Refusal

VERSIONS = {"1.0", "1.1"}
Headers = list[tuple[bytes, bytes]]


def check_head(version: str, method: bytes, target: bytes, headers: Headers) -> tuple[bytes, Refusal | None]:
    """The target as a path, and why the request is refused, if it is. Names in `headers` are in lower case.

    The authority of an absolute target replaces the Host header (RFC 9112, 3.2.2).
    """
    hosts, codings = 0, []
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if refusal := _refusal(version, method, hosts, codings):
        return target, refusal
    if target.startswith(b"/"):
        return target, None
    if target == b"*":
        return target, None if method == b"OPTIONS" else refusals.BAD_REQUEST
    return _from_absolute(target, headers)


def _refusal(version: str, method: bytes, hosts: int, codings: list[bytes]) -> Refusal | None:
    if version not in VERSIONS:
        return refusals.BAD_VERSION
    if method == b"CONNECT" or (codings and set(codings) != {b"chunked"}):
        return refusals.NOT_IMPLEMENTED
    # A proxy that speaks HTTP/1.0 passes the coding on without knowing it (RFC 9112, 6.1).
    if len(codings) > 1 or (codings and version == "1.0"):
        return refusals.BAD_REQUEST
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return refusals.BAD_HOST
    return None


def _from_absolute(target: bytes, headers: Headers) -> tuple[bytes, Refusal | None]:
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return target, refusals.BAD_REQUEST
    if url.schema not in {b"http", b"https"} or not url.host:
        return target, refusals.BAD_REQUEST
    # Names with colons are IPv6 addresses.
    host = b"[%b]" % url.host if b":" in url.host else url.host
    if url.port:
        host += b":%d" % url.port
    headers[:] = [(name, host if name == b"host" else value) for name, value in headers]
    path = url.path or b"/"
    return (path + b"?" + url.query if url.query else path), None
