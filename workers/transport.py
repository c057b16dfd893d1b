"""kombu's Redis transport, but several wake-ups are taken at once.

Each BRPOP is a round trip of its own in the thread that also claims the turns: of a burst's time in a worker
a third. BLMPOP (Redis 7.0) gives as many as wait, up to a number. A worker takes no more than a part of the
slots it has free, so that others get theirs of a small burst.

The two methods are kombu's own (`kombu/transport/redis.py`, 5.7) but for the command, for what is no message,
and for what turnpool has not: priorities, which are lists of their own there, and a prefix of all keys.
"""

from queue import Empty
from time import monotonic
from typing import Any

import orjson
from celery.worker import state
from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.encoding import bytes_to_str

from turnpool.logs import get_logger

log = get_logger(__name__)

# Untyped, and not all that is typed there is so: _in_poll is a connection, None or a bool.
Channel: Any = redis.Channel
SentinelChannel: Any = redis.SentinelChannel
text: Any = bytes_to_str

# Wake-ups taken with one command, at most; this part of the free slots is taken, at most.
MOST_AT_ONCE = 10
FREE_PART = 10


class _Several(Channel):
    """`slots`: turns that the worker runs at once."""

    slots = 1
    from_transport_options = (*Channel.from_transport_options, "slots")

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
        return max(min(free // FREE_PART, MOST_AT_ONCE), 1)

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
            try:
                # Celery keeps it as long as the turn runs; of many, the names in it are the same objects.
                decoded = orjson.loads(message)
            except ValueError:
                log.warning("no_wakeup", queue=queue)
                continue
            self.connection._deliver(decoded, queue)  # noqa: SLF001 - as kombu does
        return True


class _SentinelSeveral(_Several, SentinelChannel):
    from_transport_options = (*SentinelChannel.from_transport_options, "slots")


class Transport(redis.Transport):
    """For `redis://`, `rediss://` and `redis+socket://`."""

    Channel = _Several


class SentinelTransport(redis.SentinelTransport):
    """For `sentinel://`."""

    Channel = _SentinelSeveral


def register() -> None:
    """Let these schemes mean our transports, in this process."""
    TRANSPORT_ALIASES.update(
        redis=f"{__name__}:Transport",
        rediss=f"{__name__}:Transport",
        sentinel=f"{__name__}:SentinelTransport",
    )
