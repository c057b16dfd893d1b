"""Whether a process does its work, asked the way its users ask it."""

from http import HTTPStatus

import httpx
import redis

PROBE_SECONDS = 1.0  # all of them are on this machine


def redis_answers(port: int) -> bool:
    """Whether the embedded Valkey answers PING; it does not while it loads its data."""
    try:
        with redis.Redis(port=port, socket_timeout=PROBE_SECONDS) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def http_answers(url: str) -> bool:
    """Whether a GET is answered with success."""
    response = _get(url)
    return response is not None and response.is_success


def has_worker(pool_url: str, api_key: str | None) -> bool:
    """Whether the pool has a worker that takes turns.

    Where keys are set and TURNPOOL_API_KEY has none, the pool may not be read: then the API's
    refusal is all there is to go by.
    """
    response = _get(pool_url, {"Authorization": f"Bearer {api_key}"} if api_key else {})
    if response is None:
        return False
    if response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return True
    return response.is_success and any(not worker["draining"] for worker in response.json()["workers"])


def _get(url: str, headers: dict[str, str] | None = None) -> httpx.Response | None:
    try:
        # No proxy from the environment: it could not reach this machine's loopback address.
        return httpx.get(url, headers=headers, timeout=PROBE_SECONDS, trust_env=False)
    except httpx.TransportError:
        return None
