"""No byte of a body is ever taken for a request, however the bytes arrive."""

import random
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest

from tests.api import raw
from tests.api.server import ApiServer
from tests.api.wire import Wire

pytestmark = pytest.mark.anyio

INNER = b"DELETE /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "SEARCH", "QUERY"]
OFFERS = [
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    b"Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Key: x\r\n",
    b"connection: UPGRADE, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nUPGRADE: h2c, foo/2\r\n",
    b"Connection: foo\r\nConnection: Upgrade\r\nUpgrade:\r\nUpgrade: TLS/1.0\r\n",
    b"Connection:upgrade\r\nUpgrade:anything at all\r\nX-Empty:\r\n",
]


class Framing(NamedTuple):
    """How a body is sent."""

    headers: bytes
    data: bytes
    body: bytes


def chunked(body: bytes, size: int, extension: bytes = b"", trailer: bytes = b"") -> Framing:
    """In chunks of this size."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    data = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return Framing(b"Transfer-Encoding: chunked\r\n", data + b"0\r\n" + trailer + b"\r\n", body)


FRAMINGS = [
    Framing(b"Content-Length: %d\r\n" % len(INNER), INNER, INNER),
    chunked(INNER, 1000),
    chunked(INNER, 7, b';a="b;c"', b"Host: y\r\nX-Trailer: y\r\n"),
]


def pieces(data: bytes, *at: int) -> list[bytes]:
    """The data cut at these places."""
    cuts = [0, *sorted(at), len(data)]
    return [data[start:end] for start, end in pairwise(cuts) if start < end]


def all_splits(data: bytes) -> Iterator[list[bytes]]:
    """Whole, in two at each place, in single bytes, and in some ways at random."""
    yield [data]
    for at in range(1, len(data)):
        yield pieces(data, at)
    yield [data[at : at + 1] for at in range(len(data))]
    rng = random.Random(len(data))  # noqa: S311 - the same in each run
    for _ in range(20):
        yield pieces(data, *rng.sample(range(1, len(data)), 4))


@pytest.mark.parametrize("framing", FRAMINGS, ids=["length", "chunk", "chunks"])
@pytest.mark.parametrize("method", METHODS)
async def test_an_offer_to_upgrade_is_ignored_in_every_split(method: str, framing: Framing) -> None:
    """The body is read, and the request that follows is the next."""
    offer = OFFERS[METHODS.index(method) % len(OFFERS)]
    request = b"%b /outer HTTP/1.1\r\nHost: x\r\n%b%b\r\n%b%b" % (
        method.encode(),
        offer,
        framing.headers,
        framing.data,
        NEXT,
    )
    for split in all_splits(request):
        wire = Wire()
        await wire.send(*split)
        assert wire.seen == [(method, "/outer", framing.body), ("GET", "/next", b"")], split
        assert wire.transport.written.count(b"HTTP/1.1 200 OK") == 2
        assert wire.is_open


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("split", [(), (20,), (90,), (140,), (170,)])
async def test_every_form_of_an_offer_is_ignored(offer: bytes, split: tuple[int, ...]) -> None:
    """Several of them in a row, with bodies and without."""
    posted = b"POST /a HTTP/1.1\r\nHost: x\r\n" + offer + b"Content-Length: 38\r\n\r\n" + INNER
    got = b"GET /b HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n"
    wire = Wire()
    await wire.send(*pieces(posted + got + posted + NEXT, *split))
    assert [path for _, path, _ in wire.seen] == ["/a", "/b", "/a", "/next"]
    assert all(b"upgrade" not in headers for headers in wire.headers)


async def test_an_offer_keeps_all_other_headers() -> None:
    """Names, values and their order are what they were."""
    wire = Wire()
    head = b"GET /a?b=c%20d HTTP/1.1\r\nHost: x\r\nA: 1\r\nUpgrade: h2c\r\n"
    head += b"B:\r\nConnection: upgrade\r\nC: a  b\r\n\r\n"
    await wire.send(head)
    assert list(wire.headers[0].items()) == [
        (b"host", b"x"),
        (b"a", b"1"),
        (b"b", b""),
        (b"connection", b"upgrade"),
        (b"c", b"a  b"),
    ]


H = b"Host: x\r\n"
FAULTY = {
    "both lengths": b"POST /o HTTP/1.1\r\n" + H + b"Content-Length: 38\r\nTransfer-Encoding: chunked\r\n\r\n",
    "both, other order": b"POST /o HTTP/1.1\r\n"
    + H
    + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    "two lengths": b"POST /o HTTP/1.1\r\n" + H + b"Content-Length: 0\r\nContent-Length: 38\r\n\r\n",
    "same length twice": b"POST /o HTTP/1.1\r\n" + H + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "list of lengths": b"POST /o HTTP/1.1\r\n" + H + b"Content-Length: 0, 0\r\n\r\n",
    "signed length": b"POST /o HTTP/1.1\r\n" + H + b"Content-Length: +0\r\n\r\n",
    "huge length": b"POST /o HTTP/1.1\r\n" + H + b"Content-Length: 18446744073709551616\r\n\r\n",
    "empty length": b"POST /o HTTP/1.1\r\n" + H + b"Content-Length:\r\n\r\n",
    "gzip coding": b"POST /o HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"POST /o HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity coding": b"POST /o HTTP/1.1\r\n" + H + b"Transfer-Encoding: identity\r\n\r\n",
    "two codings": b"POST /o HTTP/1.1\r\n"
    + H
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks in 1.0": b"POST /o HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": b"POST /o HTTP/1.1\r\n" + H + b"Content-Length : 38\r\n\r\n",
    "tab in coding": b"POST /o HTTP/1.1\r\n" + H + b"Transfer-Encoding:\x0bchunked\r\n\r\n",
    "folded header": b"POST /o HTTP/1.1\r\n" + H + b"A: b\r\n Content-Length: 38\r\n\r\n",
    "bare LF": b"POST /o HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
    "bare LF in headers": b"POST /o HTTP/1.1\r\n" + H + b"A: b\nContent-Length: 0\r\n\r\n",
    "bare CR": b"POST /o HTTP/1.1\r\n" + H + b"A: b\rContent-Length: 0\r\n\r\n",
    "NUL": b"POST /o HTTP/1.1\r\n" + H + b"A: b\0\r\n\r\n",
    "bare LF after chunk size": b"POST /o HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\n\r\n",
    "LF in extension": b"POST /o HTTP/1.1\r\n"
    + H
    + b"Transfer-Encoding: chunked\r\n\r\n1;a\nX\r\na\r\n0\r\n\r\n",
    "no chunk size": b"POST /o HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "chunk over its size": b"POST /o HTTP/1.1\r\n"
    + H
    + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": b"GET /o HTTP/2.0\r\n" + H + b"\r\n",
    "HTTP/0.9": b"GET /o HTTP/0.9\r\n" + H + b"\r\n",
    "HTTP/1.2": b"GET /o HTTP/1.2\r\n" + H + b"\r\n",
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\n" + H + b"\r\n",
    "CONNECT with body": b"CONNECT x:80 HTTP/1.1\r\n" + H + b"Content-Length: 38\r\n\r\n",
    "no host": b"GET /o HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /o HTTP/1.1\r\n" + H + H + b"\r\n",
    "asterisk": b"GET * HTTP/1.1\r\n" + H + b"\r\n",
    "other scheme": b"GET ftp://x/o HTTP/1.1\r\n" + H + b"\r\n",
    "no path": b"GET x:80 HTTP/1.1\r\n" + H + b"\r\n",
    "unknown method": b"SMUGGLE /o HTTP/1.1\r\n" + H + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("fault", FAULTY)
async def test_a_request_whose_end_is_in_doubt_closes_the_connection(fault: str) -> None:
    """Nothing behind it is served, in any split, and the answer says that the connection ends."""
    for offer in (b"", b"Upgrade: h2c\r\nConnection: upgrade\r\n"):
        request = FAULTY[fault].replace(H, H + offer, 1) + INNER + NEXT
        for split in all_splits(request):
            wire = Wire()
            await wire.send(*split)
            assert not {"/smuggled", "/next"} & {path for _, path, _ in wire.seen}, split
            assert not wire.is_open
            assert re.match(rb"HTTP/1\.1 (400|431|501|505) ", wire.transport.written), split
            assert len(re.findall(rb"HTTP/1\.1 \d", wire.transport.written)) == 1
            assert b"Connection: close\r\n" in wire.transport.written


@pytest.mark.parametrize("close", [b"HTTP/1.1\r\nHost: x\r\nConnection: close", b"HTTP/1.0\r\nHost: x"])
async def test_nothing_is_served_after_a_request_that_closes(close: bytes) -> None:
    """Whenever it arrives."""
    request = b"POST /o " + close + b"\r\nContent-Length: 3\r\n\r\nabc" + INNER
    for split in all_splits(request):
        wire = Wire()
        await wire.send(*split)
        assert [path for _, path, _ in wire.seen] == ["/o"]
        assert not wire.is_open


async def test_a_fault_behind_a_request_does_not_disturb_its_answer() -> None:
    """It is whole, and then the connection ends."""
    wire = Wire()
    wire.answer_now.clear()
    await wire.send(NEXT + b"nonsense\r\n\r\n" + INNER)
    assert wire.transport.written == b""
    wire.answer_now.set()
    await wire.send(INNER)
    assert [path for _, path, _ in wire.seen] == ["/next"]
    assert wire.transport.written.endswith(b"\r\n\r\nok")
    assert not wire.is_open


async def test_the_authority_of_an_absolute_target_is_the_host() -> None:
    """RFC 9112, 3.2.2."""
    wire = Wire()
    for target in (b"http://a.b:81/p?q=1", b"https://a.b:81", b"http://[::1]/p"):
        await wire.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [path for _, path, _ in wire.seen] == ["/p", "/", "/p"]
    assert [headers[b"host"] for headers in wire.headers] == [b"a.b:81", b"a.b:81", b"[::1]"]


async def test_trailers_are_no_headers() -> None:
    """Whether the application reads its headers before or after them."""
    request = b"POST /o HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n"
    trailers = b"0\r\nAuthorization: Bearer a-key\r\nHost: y\r\n\r\n"
    for split in all_splits(request + trailers):
        wire = Wire()
        await wire.send(*split)
        assert list(wire.headers[0]) == [b"host", b"transfer-encoding", b"trailer"]
        assert wire.headers[0][b"host"] == b"x"


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.usefixtures("redis_url")
async def test_a_post_that_offers_an_upgrade_is_a_turn(shared_api: ApiServer, offer: bytes) -> None:
    """On a real socket, with the body in a packet of its own: 202, and one answer."""
    body = b'{"input": "hi"}'
    head = (
        b"POST /v1/sessions/s/turns HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + offer
    )
    async with raw.connect(shared_api.port) as connection:
        await connection.send(head + b"Content-Length: %d\r\n\r\n" % len(body))
        await connection.send(body)
        assert (await connection.answer()).status == 202
        await connection.send(NEXT)
        assert (await connection.answer()).status == 404
