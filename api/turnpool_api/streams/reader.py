"""One pub/sub connection to one Redis node, for all streams whose partitions are there."""

import asyncio
import contextlib
import itertools
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from turnpool import keys
from turnpool.errors import StoreAwayError
from turnpool.logs import get_logger
from turnpool.redis.errors import is_away
from turnpool.redis.nodes import Node, Nodes
from turnpool_api import metrics
from turnpool_api.streams.subscription import Subscription

log = get_logger(__name__)

# Seconds between tries to connect while Redis is away.
AWAY_PAUSE = 0.2
# Seconds in which a server has to answer a ping. Tokens wait so long when it vanishes.
SILENCE = 5.0
# How a connection of pub/sub is read (`Connection.read_response`).
FOR_EVER: dict[str, Any] = {"timeout": math.inf, "disconnect_on_error": False, "push_request": True}
# Kind, channel, and what was said, or how many channels there are now.
MESSAGE_PARTS = 3


@dataclass(eq=False)
class Channel:
    """The streams of one session. `asked`: subscriptions sent to its reader's node and not confirmed yet."""

    prefix: str
    streams: set[Subscription] = field(default_factory=set)
    reader: "Reader | None" = None
    asked: int = 0
    is_confirmed: bool = False

    def hear(self, *, is_confirmed: bool) -> None:
        """All is heard from now on, or nothing: its streams go to the log."""
        self.is_confirmed = is_confirmed
        for stream in self.streams:
            stream.heard(is_confirmed=is_confirmed)


Channels = dict[str, Channel]


class Reader:
    """The connection to one node, and what it hears of the channels that are its own."""

    def __init__(self, node: Node, nodes: Nodes, channels: Channels) -> None:
        self._node = node
        self._nodes = nodes
        self._channels = channels
        self._connection: Any = None
        # Whether anything came since the last ping.
        self._heard = False
        self._orders: list[tuple[str, bool]] = []
        self._sending: asyncio.Task[None] | None = None
        # Orders to leave a channel that are not confirmed yet.
        self._leaving: Counter[str] = Counter()

    async def run(self) -> None:
        """Read until cancelled; connect anew whenever the connection breaks, however it does."""
        while True:
            try:
                await self._read()
            except Exception as error:  # noqa: BLE001 - told, and tried again
                log_connection_error(error)
            self._nodes.suspect()
            await asyncio.sleep(AWAY_PAUSE)

    async def _read(self) -> None:
        async with self._node.redis.pubsub(push_handler_func=_as_it_is) as pubsub:
            # Keeps the connection open while no session is listened to.
            await pubsub.subscribe(keys.relay(self._nodes.prefixes[0]))
            # Used by itself, which costs half of what the pubsub object's own ways do. Those would, when the
            # connection is lost, make another, and subscribe to nothing but the channel that they know.
            connection = pubsub.connection
            watching = asyncio.create_task(self._watch(connection), name="relay-watch")
            try:
                await self._subscribe_again(connection)
                while connection.is_connected:
                    self._handle(await connection.read_response(**FOR_EVER))
            finally:
                self._connection = None
                watching.cancel()
                for channel in self._channels.values():
                    if channel.reader is self:
                        channel.hear(is_confirmed=False)

    async def _watch(self, connection: Any) -> None:
        """Give up a connection whose server is silent: it may have vanished without a word."""
        while connection.is_connected:
            self._heard = False
            with contextlib.suppress(Exception):  # the reader notices that the connection is gone
                await connection.send_command("PING")
            await asyncio.sleep(SILENCE)
            if not self._heard:
                log.warning("pubsub_timeout", seconds=SILENCE)
                await connection.disconnect(nowait=True)

    async def _subscribe_again(self, connection: Any) -> None:
        """On a new connection: all channels anew. What was missed meanwhile is in the logs."""
        self._orders.clear()
        self._leaving.clear()
        own = {name: channel for name, channel in self._channels.items() if channel.reader is self}
        for name, channel in own.items():
            if not channel.streams:
                del self._channels[name]
                continue
            channel.asked = 1
            metrics.CATCH_UPS.labels("reconnected").inc(len(channel.streams))
        self._connection = connection
        await self._send(
            connection, [name for name, channel in own.items() if channel.streams], subscribe=True
        )

    def _handle(self, message: Any) -> None:
        self._heard = True
        if not isinstance(message, list) or len(message) != MESSAGE_PARTS:
            return  # the answer to a ping
        kind, channel_name, data = message
        name = channel_name.decode()
        channel = self._channels.get(name)
        own = channel if channel and channel.reader is self else None
        match kind:
            case b"smessage" if own:
                metrics.EVENTS.inc()
                n, _, frame = data.partition(b" ")
                for stream in own.streams:
                    stream.push(int(n), frame)
            case b"ssubscribe" if own:
                self._confirmed(name, own)
            case b"sunsubscribe" if name in self._leaving:
                self._left(name)
            case b"sunsubscribe" if own:
                # The node's own doing: the slot has moved.
                own.reader = None
                own.hear(is_confirmed=False)
                self._nodes.suspect()

    def _left(self, name: str) -> None:
        self._leaving[name] -= 1
        if not self._leaving[name]:
            del self._leaving[name]

    def _confirmed(self, name: str, channel: Channel) -> None:
        channel.asked = max(channel.asked - 1, 0)
        if channel.asked:
            return
        # Streams that go on from an old connection have not heard what came before this.
        channel.hear(is_confirmed=True)
        if not channel.streams:
            del self._channels[name]

    def ask(self, name: str, channel: Channel) -> None:
        """Subscribe to a channel that is this reader's own."""
        # Without a connection nothing is sent: all channels are once there is one.
        if self._connection is not None:
            channel.asked += 1
            self._order(name, subscribe=True)

    def leave(self, name: str) -> None:
        """Unsubscribe from a channel."""
        if self._connection is not None:
            self._order(name, subscribe=False)

    def _order(self, name: str, *, subscribe: bool) -> None:
        """What comes in one turn of the loop goes out in one command; the order stays."""
        self._orders.append((name, subscribe))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_orders(), name="relay-orders")

    async def _send_orders(self) -> None:
        try:
            while self._orders:
                connection, orders, self._orders = self._connection, self._orders, []
                for subscribe, group in itertools.groupby(orders, key=lambda order: order[1]):
                    # A new connection has got all channels anew; orders for an old one must not reach it.
                    if connection is not None and connection is self._connection:
                        await self._send(connection, [name for name, _ in group], subscribe=subscribe)
        finally:
            self._sending = None

    async def _send(self, connection: Any, names: list[str], *, subscribe: bool) -> None:
        """Send orders, one command for each slot, as a cluster wants it."""
        for _, group in itertools.groupby(sorted(names), key=_partition):
            some = list(group)
            if not subscribe:
                self._leaving.update(some)
            await _send(connection, some, subscribe=subscribe)


def _partition(channel: str) -> str:
    return channel.partition("}")[0]


async def _as_it_is(message: Any) -> Any:
    """What redis-py makes of a message, but without a line for a log that nobody reads."""
    return message


async def _send(connection: Any, names: list[str], *, subscribe: bool) -> None:
    """Send one command. Only the reader connects again: two on one connection would break it."""
    if not connection.is_connected:
        return
    with contextlib.suppress(Exception):  # whatever it is, the reader notices that the connection is gone
        await connection.send_command("SSUBSCRIBE" if subscribe else "SUNSUBSCRIBE", *names)


def log_connection_error(error: Exception) -> None:
    """Log what a connection broke of."""
    if isinstance(error, StoreAwayError) or is_away(error):
        log.warning("redis_away", error=str(error))
    else:
        log.error("relay_failed", exc_info=error)
