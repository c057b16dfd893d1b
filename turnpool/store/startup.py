"""What a process checks of its servers before it starts. A server that is away is not checked.

What can be wrong for good is one clear line: a certificate file, a database that the server does not have, a
missing right, a durability that the server cannot give.
"""

import ssl
from collections.abc import Awaitable, Callable

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from turnpool.errors import SettingsError
from turnpool.logs import get_logger
from turnpool.redis.access import ADVICE, Refusal, Role, broker_commands, find_refusal, store_commands
from turnpool.redis.cluster import open_nodes
from turnpool.redis.connections import connect
from turnpool.redis.nodes import Nodes
from turnpool.redis.urls import RedisUrl
from turnpool.settings import Settings
from turnpool.store import durability

log = get_logger(__name__)

STORE, BROKER = "TURNPOOL_REDIS_URL", "TURNPOOL_BROKER_URL"
NO_DATABASE = "DB index"


async def check(settings: Settings, role: Role) -> None:
    """Check the servers that a process of this role uses. Raises SettingsError."""
    if role is not Role.FLOWER:
        _check_tls(STORE, settings.store)
        await _unless_away(STORE, settings.store, lambda: _check_store(settings, role))
    if role is Role.FLOWER or not settings.is_one_server:
        name = STORE if settings.broker_url is None else BROKER
        _check_tls(name, settings.broker)
        await _unless_away(name, settings.broker, lambda: _check_broker(settings, role, name))


async def _unless_away(name: str, url: RedisUrl, checks: Callable[[], Awaitable[None]]) -> None:
    try:
        await checks()
    except ResponseError as error:
        # Said when a connection is made.
        if NO_DATABASE in str(error):
            raise SettingsError(f"{name}: the server has no database {url.database}") from None
        if isinstance(error, NoPermissionError):
            raise SettingsError(f"{name}: the server refuses ({error}); {ADVICE}") from None
        log.warning("redis_check_skipped", setting=name, error=str(error))
    except (RedisError, OSError) as error:
        log.warning("redis_check_skipped", setting=name, error=str(error))


async def _check_store(settings: Settings, role: Role) -> None:
    nodes = open_nodes(settings.store, settings.namespace, connections=1)
    try:
        await nodes.find()
        _raise(STORE, await find_store_refusal(nodes, settings, role))
        if settings.is_one_server and (node := nodes.node_of(nodes.prefixes[0])):
            _raise(STORE, await find_refusal(node.redis, broker_commands(settings, role)))
        await durability.check(nodes, settings)
    finally:
        await nodes.close()


async def find_store_refusal(nodes: Nodes, settings: Settings, role: Role) -> Refusal | None:
    """The first command of the role that a server of the store does not take. Raises what redis-py raises."""
    await nodes.find()
    for node, prefix in {nodes.node_of(prefix): prefix for prefix in nodes.prefixes}.items():
        if node and (refusal := await find_refusal(node.redis, store_commands(settings, role, prefix))):
            return refusal
    return None


async def _check_broker(settings: Settings, role: Role, name: str) -> None:
    redis = connect(settings.broker, connections=1)
    try:
        _raise(name, await find_refusal(redis, broker_commands(settings, role)))
    finally:
        await redis.aclose()


def _raise(name: str, refusal: Refusal | None) -> None:
    if refusal:
        raise SettingsError(f"{name}: {refusal}")


def _check_tls(name: str, url: RedisUrl) -> None:
    """Read the certificate files as TLS will, so that a wrong one is not taken for a server that is away."""
    tls = url.tls
    if tls is None:
        return
    for option, path in (("ssl_ca_certs", tls.ca_certs), ("ssl_certfile", tls.certfile)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if path and option == "ssl_ca_certs":
                context.load_verify_locations(path)
            elif path:
                context.load_cert_chain(path, tls.keyfile)
        except OSError as error:  # ssl.SSLError is one
            wrong = "it is no certificate in PEM form, or its key does not fit"
            reason = wrong if isinstance(error, ssl.SSLError) else error.strerror
            raise SettingsError(f"{name}: {option} cannot be used: {reason}") from None
