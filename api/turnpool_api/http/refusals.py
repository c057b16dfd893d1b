"""Answers to requests that are refused before the application sees them."""

import secrets
from http import HTTPStatus
from typing import NamedTuple

import orjson

MEDIA_TYPE = "application/problem+json"


class Refusal(NamedTuple):
    """A problem document to be."""

    status: int
    code: str
    detail: str

    def document(self, request_id: str) -> bytes:
        """RFC 9457."""
        return orjson.dumps(
            {
                "type": "about:blank",
                "title": self.code.replace("_", " ").capitalize(),
                "status": self.status,
                "code": self.code,
                "detail": self.detail,
                "request_id": request_id,
            }
        )

    def response(self) -> bytes:
        """The whole HTTP response. The connection is closed after it."""
        request_id = secrets.token_hex(16)
        body = self.document(request_id)
        retry = "Retry-After: 1\r\n" if self.status == HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"Content-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\nX-Request-ID: {request_id}\r\n"
            f"{retry}Connection: close\r\n\r\n"
        )
        return head.encode() + body


BAD_REQUEST = Refusal(400, "bad_request", "This is not a valid HTTP/1.1 request.")
BAD_HOST = Refusal(400, "bad_request", "Send exactly one Host header.")
HEAD_TIMEOUT = Refusal(
    408, "request_timeout", "The headers took too long; send them again (limit: TURNPOOL_HEADER_SECONDS)."
)
BODY_TIMEOUT = Refusal(
    408, "request_timeout", "The body took too long; send it again (limit: TURNPOOL_BODY_SECONDS)."
)
TARGET_TOO_LONG = Refusal(414, "uri_too_long", "The request's path and query are too long.")
HEADERS_TOO_LARGE = Refusal(
    431, "headers_too_large", "The request's headers are too long or too many; send fewer."
)
NOT_IMPLEMENTED = Refusal(501, "not_implemented", "Neither CONNECT nor a transfer coding besides chunked.")
BAD_VERSION = Refusal(505, "http_version_not_supported", "Use HTTP/1.1.")
TOO_MANY_CONNECTIONS = Refusal(503, "too_many_connections", "Too many connections; try again later.")
