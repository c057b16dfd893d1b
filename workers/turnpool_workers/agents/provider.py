"""An OpenAI-compatible endpoint: one request, and its answer in pieces.

Knows nothing of turns. Raises ProviderError for what stays, TransientProviderError for what may pass.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple

import httpx
import orjson

from turnpool import tracing
from turnpool.errors import ProviderError, SettingsError, TransientProviderError
from turnpool.settings import Settings
from turnpool_workers.agents import provider_errors as errors
from turnpool_workers.agents.answers import pieces_of
from turnpool_workers.agents.pieces import Piece

Body = dict[str, Any]

# Seconds to connect; a loop with a thousand turns may need some of them for itself.
CONNECT_TIMEOUT = 10.0
# Bytes of an error's body that are read.
MAX_ERROR_BYTES = 64 * 1024
# Connections that wait for the next request. Open ones are not limited: each turn has its own.
KEEPALIVE = 200
SUCCESS = range(200, 300)


class Patience(NamedTuple):
    """Seconds of silence that are borne: before the answer's text, and within it."""

    first: float
    stall: float


class Provider:
    """The endpoint that the settings name. Belongs to one event loop. Raises SettingsError."""

    def __init__(self, settings: Settings) -> None:
        url = httpx.URL(settings.llm_base_url)
        # Whatever the base URL has as its query belongs to each request.
        path = url.raw_path.partition(b"?")
        self._url = url.copy_with(raw_path=path[0].rstrip(b"/") + b"/chat/completions" + path[1] + path[2])
        self._key = settings.llm_api_key.get_secret_value()
        self._patience = Patience(settings.first_token_seconds, settings.stall_seconds)
        self._client = _client()

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def ask(self, body: Body) -> AsyncGenerator[Piece, None]:
        """Send a request, yield its answer as it arrives; the last piece with a `finish` ends it."""
        span = tracing.model_span(str(body.get("model", "")), self._url.host)
        headers = {
            "authorization": f"Bearer {self._key}",
            "content-type": "application/json",
            "accept": "text/event-stream, application/json",
            **tracing.headers(span),
        }
        request = self._client.build_request("POST", self._url, content=_json(body), headers=headers)
        several = body.get("n") not in {None, 1}
        try:
            started = time.monotonic()
            response = await self._send(request)
            waited = time.monotonic() - started
            try:
                async with aclosing(pieces_of(response, several=several)) as pieces:
                    async for piece in _to_the_end(pieces, self._patience, waited):
                        yield piece
            finally:
                await response.aclose()
        finally:
            span.end()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """The response, its body unread. Raises ProviderError for one that is no success."""
        try:
            async with asyncio.timeout(self._patience.first):
                response = await self._client.send(request, stream=True)
                if response.status_code in SUCCESS:
                    return response
                body = await _beginning(response)
        except TimeoutError:
            raise _silent(self._patience.first) from None
        except errors.CONNECTING as error:
            raise errors.unreachable(error) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise errors.disconnected(error) from error
        raise errors.refused(response.status_code, response.headers, body)


def _client() -> httpx.AsyncClient:
    try:
        # The authorities of the system too: a company may have its own.
        trust = httpx.create_ssl_context()
        trust.load_default_certs()
        return httpx.AsyncClient(
            verify=trust,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=KEEPALIVE),
            follow_redirects=True,
        )
    except ImportError as error:
        raise SettingsError(
            "ALL_PROXY, HTTPS_PROXY or HTTP_PROXY names a SOCKS proxy, which needs the package socksio: "
            "pip install 'httpx[socks]', or unset it"
        ) from error
    except (ValueError, OSError, httpx.InvalidURL) as error:
        # The message may have the proxy's URL, which is cut where it has a password.
        raise SettingsError(f"a proxy or certificate variable of the environment: {error}") from error


def _json(body: Body) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError as error:
        said = f"The request cannot be written as JSON: {error}"
        raise ProviderError(said, said) from None


async def _beginning(response: httpx.Response) -> bytes:
    """The beginning of a body; the rest is not read."""
    body = b""
    try:
        async for data in response.aiter_bytes():
            body += data
            if len(body) > MAX_ERROR_BYTES:
                break
    finally:
        await response.aclose()
    return body[:MAX_ERROR_BYTES]


async def _to_the_end(
    pieces: AsyncIterator[Piece], patience: Patience, waited: float
) -> AsyncGenerator[Piece, None]:
    """The pieces of a whole answer. Raises TransientProviderError if it stalls or has no end."""
    said = ended = False
    left = patience.first - waited
    while True:
        asked = time.monotonic()
        try:
            async with asyncio.timeout(max(left, 0)):
                piece = await anext(pieces)
        except StopAsyncIteration:
            break
        except (TimeoutError, TransientProviderError) as error:
            if ended:
                # The answer is whole, only its usage may be missing.
                return
            if isinstance(error, TransientProviderError):
                raise
            raise (_stalled(patience.stall) if said else _silent(patience.first)) from None
        if piece.is_whole and said:
            # Some repeat the whole answer in the last event.
            piece = piece._replace(text="", refusal="")
        said = said or bool(piece.text or piece.refusal)
        ended = ended or piece.finish is not None
        # Only the time spent here counts: whoever reads the answer may be slow.
        if piece.is_empty:
            left -= time.monotonic() - asked
        else:
            left = patience.stall if said else patience.first
        yield piece
    if not ended:
        raise TransientProviderError("The model's provider ended its answer without a finish_reason.")


def _silent(seconds: float) -> TransientProviderError:
    said = f"The model's provider sent no answer within {seconds:g} s."
    return TransientProviderError(said, public=said)


def _stalled(seconds: float) -> TransientProviderError:
    said = f"The model's provider stopped in mid-answer and was silent for {seconds:g} s."
    return TransientProviderError(said, public=said)
