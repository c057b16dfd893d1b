"""kombu's Redis transport, but several wake-ups are taken at once, and nothing else gets through.

Each BRPOP is a round trip of its own in the thread that also claims the turns: of a burst's time in a worker
a third. BLMPOP (Redis 7.0) gives as many as wait, up to a number. A worker takes no more than a part of the
slots it has free, so that others get theirs of a small burst.

Celery ends, or worse, on messages it does not expect. So of a queue only wake-ups reach it, made here from
their ids.

Celery's configuration holds no secret: it is shown to whoever may ask a worker for it, as Flower does. User
and passwords reach the connections by `_URLS`.

`_brpop_start` and `_brpop_read` are kombu's own (`kombu/transport/redis.py`, 5.7) but for the command, for
malformed messages, and for what turnpool has not: priorities, which are lists of their own there, and a
prefix of all keys. tests/workers/test_internals.py notices when kombu changes what is used here.
"""

from collections.abc import Sequence
from queue import Empty
from time import monotonic
from typing import Any

import orjson
from celery.worker import state
from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.encoding import bytes_to_str
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from turnpool.logs import get_logger
from turnpool.redis.urls import Kind, RedisUrl, place
from turnpool.store.wakeups import read

log = get_logger(__name__)

# Untyped, and not all that is typed there is so: _in_poll is a connection, None or a bool.
Channel: Any = redis.Channel
SentinelChannel: Any = redis.SentinelChannel
text: Any = bytes_to_str

# Wake-ups taken with one command, at most; this part of the free slots is taken, at most.
MAX_AT_ONCE = 10
FREE_PART = 10
SENTINEL_OPTIONS = {
    "socket_connect_timeout": 1,
    "socket_timeout": 1,
    # Otherwise redis-py asks one that is away ten times, with pauses, before the next.
    "retry": Retry(NoBackoff(), 0),
}
BROKER_OPTIONS = {
    # Seconds: a broker that is away is noticed, and never blocks for long.
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "socket_keepalive": True,
    # Wake-ups are not acknowledged, so there are none to restore: when it connects kombu would look for some,
    # with a write that a server may refuse.
    "ack_emulation": False,
    # One list for each queue.
    "priority_steps": [0],
}
OWN_OPTIONS = ("slots", "server", "wake_up_queues")
# Brokers of this process by the transport option `server`.
_URLS: dict[str, RedisUrl] = {}


class BatchChannel(Channel):
    """`slots`: turns that the worker runs at once. `server`: which of `_URLS` it is.

    `wake_up_queues`: those whose messages are wake-ups; others are mailboxes.
    """

    slots = 1
    server = ""
    wake_up_queues: Sequence[str] = ()
    from_transport_options = (*Channel.from_transport_options, *OWN_OPTIONS)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's own
        url = _URLS[self.server]
        params: dict[str, Any] = super()._connparams(asynchronous)
        return params | url.login | {"db": url.database} | ({"path": url.path} if url.path else {})

    def _receive_one(self, client: Any) -> bool:
        """Handle one broadcast: a command for this worker, or an event for Flower."""
        try:
            handled: bool = super()._receive_one(client)
        except (RedisError, OSError, Empty):
            raise
        except Exception as error:  # noqa: BLE001 - whoever may publish may publish anything
            log.warning("malformed_broadcast", error=type(error).__name__)
            return False
        return handled

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = monotonic()
        wait = self.brpop_timeout if timeout is None else timeout
        connection.send_command("BLMPOP", wait, len(queues), *queues, "RIGHT", "COUNT", self._most())

    def _most(self) -> int:
        free = self.slots - len(state.reserved_requests)
        return max(min(free // FREE_PART, MAX_AT_ONCE), 1)

    def _brpop_read(self, **options: Any) -> bool:
        try:
            taken = self.client.parse_response(self.client.connection, "BLMPOP", **options)
        except self.connection_errors:
            # The next turn of the hub connects again.
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not taken:
            raise Empty
        queue = text(taken[0])
        self._queue_cycle.rotate(queue)
        for message in taken[1]:
            self._hand_on(queue, message)
        return True

    def _hand_on(self, queue: str, message: bytes) -> None:
        if queue not in self.wake_up_queues:
            self._hand_on_reply(queue, message)
        elif wake_up := read(message, queue):
            self.connection._deliver(wake_up, queue)  # noqa: SLF001 - as kombu does
        else:
            log.warning("malformed_wakeup", queue=queue, bytes=len(message))

    def _hand_on_reply(self, queue: str, message: bytes) -> None:
        """A worker's answer to remote control, for Flower."""
        try:
            self.connection._deliver(orjson.loads(message), queue)  # noqa: SLF001 - as kombu does
        except (RedisError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - as of broadcasts
            log.warning("malformed_reply", queue=queue, error=type(error).__name__)


class SentinelBatchChannel(BatchChannel, SentinelChannel):
    """A BatchChannel of a server that Sentinels name."""

    from_transport_options = (*SentinelChannel.from_transport_options, *OWN_OPTIONS)

    @property
    def sentinel_kwargs(self) -> dict[str, Any]:
        """What redis-py's clients of the Sentinels take."""
        return SENTINEL_OPTIONS | _URLS[self.server].sentinel_options


class Transport(redis.Transport):
    """For `redis://`, `rediss://` and `redis+socket://`."""

    Channel = BatchChannel


class SentinelTransport(redis.SentinelTransport):
    """For `sentinel://`."""

    Channel = SentinelBatchChannel


def broker_conf(url: RedisUrl, slots: int, queues: Sequence[str]) -> dict[str, Any]:
    """Celery's settings for a broker, without its secrets. From now on its schemes mean our transports."""
    TRANSPORT_ALIASES.update(
        redis=f"{__name__}:Transport",
        rediss=f"{__name__}:Transport",
        sentinel=f"{__name__}:SentinelTransport",
    )
    _URLS[str(url)] = url
    options: dict[str, Any] = BROKER_OPTIONS | {"slots": slots, "server": str(url)}
    options["wake_up_queues"] = list(queues)
    if url.sentinels:
        options["master_name"] = url.sentinels.master
    return {
        "broker_url": _celery_url(url),
        "broker_use_ssl": url.tls.options if url.tls else None,
        "broker_transport_options": options,
    }


def _celery_url(url: RedisUrl) -> str:
    if url.kind is Kind.UNIX:
        return f"redis+socket://{url.path}"
    if url.kind is Kind.SENTINEL:
        return ";".join(f"sentinel://{place(*host)}/{url.database}" for host in url.hosts)
    return str(url)
