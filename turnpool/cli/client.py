"""A client of the HTTP API that survives the loss of any API process.

Every call may be repeated without harm (a turn is posted with an Idempotency-Key), so a lost
connection or a refusal that may pass is tried again, at the next address where there are several.
"""

import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import orjson
from httpx_sse import EventSource, SSEError

from turnpool.cli.backoff import GIVE_UP_SECONDS, Backoff
from turnpool.errors import TurnpoolError

Notify = Callable[[str], None]

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 40.0  # the API sends a ping after 15 s without events
MAX_RETRY_AFTER_SECONDS = 30.0  # a person is waiting
TRY_AGAIN_STATUSES = frozenset({429, 500, 502, 503, 504})
TERMINAL_EVENTS = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})


class ApiError(TurnpoolError):
    """The API refused the request."""

    code = "api_error"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(TurnpoolError):
    """No API process answered for too long."""

    code = "unreachable"


class _TryAgainError(Exception):
    """The request failed in a way that may pass."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


@dataclass(frozen=True)
class Event:
    """One event of a turn; `data` has the fields of its type."""

    type: str
    seq: int
    data: dict[str, Any]

    @property
    def terminal(self) -> bool:
        """Whether the turn has ended with it."""
        return self.type in TERMINAL_EVENTS


class Client:
    """Talks to the API at the first of `urls` that answers.

    `notify` is told in plain words, once, when a connection is lost. After `give_up_seconds`
    without any answer a call raises UnreachableError.
    """

    def __init__(
        self,
        urls: Sequence[str],
        api_key: str | None = None,
        give_up_seconds: float = GIVE_UP_SECONDS,
    ) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._current = 0
        self.notify: Notify = lambda _: None
        self._give_up_seconds = give_up_seconds
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def post_turn(self, session_id: str, text: str, agent: str | None = None) -> str:
        """Post a turn and return its id."""
        body = {"input": text} | ({"agent": agent} if agent else {})
        response = await self._request(
            "POST",
            f"/v1/sessions/{quote(session_id, safe='')}/turns",
            json=body,
            headers={"Idempotency-Key": uuid.uuid4().hex},
        )
        return response.headers["Location"].rsplit("/", 1)[-1]

    async def cancel(self, turn_id: str) -> None:
        """Cancel a turn; one that has ended stays as it is."""
        await self._request("POST", f"/v1/turns/{turn_id}/cancel")

    async def turns(self, session_id: str) -> dict[str, Any]:
        """Return the newest turns of a session as the API lists them, with their outputs."""
        return await self._get(f"/v1/sessions/{quote(session_id, safe='')}/turns?include=output")

    async def pool(self) -> dict[str, Any]:
        """Return what the pool does now."""
        return await self._get("/v1/pool")

    async def events(self, turn_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
        """Yield the events of a turn after `after`, each once, up to its end."""
        backoff = Backoff(self._give_up_seconds)
        while True:
            try:
                async with aclosing(self._connection(turn_id, after)) as connection:
                    async for event in connection:
                        backoff.reset()
                        if event.seq > after:
                            after = event.seq
                            yield event
                        if event.terminal:
                            return
                problem = _TryAgainError("it ended the stream")
            except _TryAgainError as error:
                problem = error
            await self._pause(backoff, problem)

    async def _connection(self, turn_id: str, after: int) -> AsyncGenerator[Event, None]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after:
            headers["Last-Event-ID"] = str(after)
        path = f"{self._urls[self._current]}/v1/turns/{turn_id}/events"
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                await _check(response)
                async for frame in EventSource(response).aiter_sse():
                    if frame.data:  # a bare `retry:` has none
                        data = orjson.loads(frame.data)
                        yield Event(data["type"], data["seq"], data)
        except (httpx.TransportError, SSEError) as error:
            raise _TryAgainError(_reason(error)) from error

    async def _get(self, path: str) -> dict[str, Any]:
        response = await self._request("GET", path)
        answer: dict[str, Any] = orjson.loads(response.content)
        return answer

    async def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        backoff = Backoff(self._give_up_seconds)
        while True:
            try:
                url = self._urls[self._current] + path
                response = await self._http.request(method, url, **options)
                await _check(response)
            except httpx.TransportError as error:
                await self._pause(backoff, _TryAgainError(_reason(error)))
            except _TryAgainError as error:
                await self._pause(backoff, error)
            else:
                return response

    async def _pause(self, backoff: Backoff, problem: _TryAgainError) -> None:
        if backoff.exhausted:
            raise UnreachableError(
                f"No answer from {' or '.join(self._urls)} for {self._give_up_seconds:.0f} s "
                f"({problem}). Is turnpool running there? `turnpool up` starts it; "
                "--url names another address."
            )
        if backoff.fresh:
            self.notify(f"{self._urls[self._current]}: {problem}; trying again")
        self._current = (self._current + 1) % len(self._urls)
        await backoff.wait(problem.seconds if len(self._urls) == 1 else 0.0)


async def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    await response.aread()
    message = _problem_message(response)
    if response.status_code in TRY_AGAIN_STATUSES:
        raise _TryAgainError(message, _retry_after(response))
    raise ApiError(message, response.status_code)


def _problem_message(response: httpx.Response) -> str:
    with suppress(orjson.JSONDecodeError, AttributeError):
        problem = orjson.loads(response.content)
        if message := problem.get("detail") or problem.get("title"):
            return str(message)
    return f"HTTP {response.status_code} {response.reason_phrase}"


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), MAX_RETRY_AFTER_SECONDS) if value.isdecimal() else 0.0


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
