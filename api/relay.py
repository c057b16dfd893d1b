"""One pub/sub connection to each Redis node for all streams of a process.

Sharded pub/sub: a session's events are told by the node that has its partition. When partitions move,
their channels are subscribed to anew where they are now, and their streams go on from the log.

Bytes are passed on as they come. A stream that does not keep up costs bounded memory: what waits
for it is dropped, and it goes back to the log.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from redis.exceptions import RedisError

from api import metrics
from turnpool import keys
from turnpool.logs import get_logger
from turnpool.nodes import Node, Nodes
from turnpool.redis import is_away
from turnpool.store import Store

log = get_logger(__name__)

# Bytes that may wait for one stream; a client that is slower than its model reads from the log.
MOST_WAITING = 256 * 1024
# Seconds between tries to connect while Redis is away.
AWAY_PAUSE = 0.2
OWN_CHANNEL = "turnpool:relay"


class Subscription:
    """What has come for one stream and is not taken yet. `behind`: something was missed, see the log."""

    def __init__(self) -> None:
        self.behind = False
        self.closing = False
        self._waiting: list[tuple[int, bytes]] = []
        self._size = 0
        self._changed = asyncio.Event()

    def push(self, n: int, frame: bytes) -> None:
        """An event of the session's turn n."""
        if self.behind:
            return
        self._waiting.append((n, frame))
        self._size += len(frame)
        if self._size > MOST_WAITING:
            metrics.CATCH_UPS.labels("slow_client").inc()
            self.fall_behind()
        self._changed.set()

    def fall_behind(self) -> None:
        """Something is missing here."""
        self.behind = True
        self._waiting.clear()
        self._size = 0
        self._changed.set()

    def close(self) -> None:
        """The process ends; so must the stream."""
        self.closing = True
        self._changed.set()

    def catch_up(self) -> None:
        """The log is read from now on; what comes meanwhile is kept again."""
        self.behind = False

    def live(self) -> bool:
        """Whether nothing was missed and the process goes on."""
        return not (self.behind or self.closing)

    async def take(self, until: float) -> list[tuple[int, bytes]]:
        """All that waits, as soon as there is something; nothing if nothing came until then (loop time)."""
        if not self._waiting and self.live():
            self._changed.clear()
            # A bare timer: asyncio.timeout costs as much as the rest of an event's way.
            timer = asyncio.get_running_loop().call_at(until, self._changed.set)
            try:
                await self._changed.wait()
            finally:
                timer.cancel()
        waiting, self._waiting = self._waiting, []
        self._size = 0
        return waiting


class Channel:
    """The streams of one session. `asked`: subscriptions sent to its reader's node and not confirmed yet."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.streams: set[Subscription] = set()
        self.reader: Reader | None = None
        self.asked = 0
        self.in_force = asyncio.Event()


Channels = dict[str, Channel]


class Relay:
    """Subscribes to sessions' channels, each at the node that has it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._channels: Channels = {}
        self._readers: dict[Node, tuple[Reader, asyncio.Task[None]]] = {}
        self._closing = False
        self._changed = asyncio.Event()
        store.nodes.watch(self._changed.set)

    @contextlib.asynccontextmanager
    async def subscribe(self, session_id: str) -> AsyncIterator[Subscription]:
        """Events of a session from now on; in force when entered. Waits while Redis is away."""
        prefix = self._store.prefix_of(session_id)
        name = keys.events(prefix, session_id)
        channel = self._channels.setdefault(name, Channel(prefix))
        subscription = Subscription()
        channel.streams.add(subscription)
        metrics.STREAMS.inc()
        try:
            if len(channel.streams) == 1:
                self._ask(name, channel)
            if self._closing:
                subscription.close()
            else:
                await channel.in_force.wait()
            yield subscription
        finally:
            metrics.STREAMS.dec()
            channel.streams.discard(subscription)
            if not channel.streams:
                self._leave(name, channel)

    def close(self) -> None:
        """End all streams, those that come too."""
        self._closing = True
        for channel in self._channels.values():
            channel.in_force.set()
            for stream in channel.streams:
                stream.close()

    async def run(self) -> None:
        """Read from every node until cancelled."""
        try:
            while True:
                self._changed.clear()
                try:
                    await self._store.nodes.find()
                except Exception as error:  # noqa: BLE001 - told, and tried again
                    _tell(error)
                    await asyncio.sleep(AWAY_PAUSE)
                else:
                    self._follow()
                    await self._changed.wait()
        finally:
            tasks = [task for _, task in self._readers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self) -> None:
        """A reader for each node that has partitions; each channel to the reader of its node."""
        nodes = self._store.nodes
        there = {node for prefix in nodes.prefixes if (node := nodes.node_of(prefix))}
        for node in self._readers.keys() - there:
            self._readers.pop(node)[1].cancel()
        for node in there - self._readers.keys():
            reader = Reader(node, nodes, self._channels)
            self._readers[node] = (reader, asyncio.create_task(reader.run(), name="relay-reader"))
        for name, channel in list(self._channels.items()):
            if channel.reader is self._reader(channel):
                continue
            if channel.streams:
                self._ask(name, channel)
            else:
                del self._channels[name]

    def _reader(self, channel: Channel) -> "Reader | None":
        node = self._store.nodes.node_of(channel.prefix)
        found = self._readers.get(node) if node else None
        return found[0] if found else None

    def _ask(self, name: str, channel: Channel) -> None:
        channel.in_force.clear()
        reader = self._reader(channel)
        if reader is not channel.reader:
            channel.reader, channel.asked = reader, 0
        # Without a reader nothing is sent: it is asked for once there is one.
        if reader:
            reader.ask(name, channel)

    def _leave(self, name: str, channel: Channel) -> None:
        # One that is not confirmed stays, so that its confirmation is not taken for a later one's.
        if channel.asked == 0:
            self._channels.pop(name, None)
        if channel.reader:
            channel.reader.leave(name)


class Reader:
    """The connection to one node, and what it hears of the channels that are its own."""

    def __init__(self, node: Node, nodes: Nodes, channels: Channels) -> None:
        self._node = node
        self._nodes = nodes
        self._channels = channels
        self._pubsub: Any = None
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
                _tell(error)
            self._nodes.suspect()
            await asyncio.sleep(AWAY_PAUSE)

    async def _read(self) -> None:
        async with self._node.redis.pubsub() as pubsub:
            # A channel of its own keeps the connection open when no session is listened to.
            await pubsub.subscribe(OWN_CHANNEL)
            try:
                await self._subscribe_again(pubsub)
                # A connection that a sender found broken is given up: redis-py would connect again by itself
                # and subscribe to nothing but the channel that it knows.
                while pubsub.connection.is_connected:
                    message = await pubsub.get_message(timeout=None)
                    if message:
                        self._handle(message)
            finally:
                self._pubsub = None

    async def _subscribe_again(self, pubsub: Any) -> None:
        """On a new connection: all channels anew. What was missed meanwhile is in the logs."""
        self._orders.clear()
        self._leaving.clear()
        own = {name: channel for name, channel in self._channels.items() if channel.reader is self}
        for name, channel in own.items():
            if not channel.streams:
                del self._channels[name]
                continue
            channel.asked = 1
            channel.in_force.clear()
            for stream in channel.streams:
                metrics.CATCH_UPS.labels("reconnected").inc()
                stream.fall_behind()
        self._pubsub = pubsub
        await self._send(pubsub, [name for name, channel in own.items() if channel.streams], subscribe=True)

    def _handle(self, message: dict[str, Any]) -> None:
        name = message["channel"].decode()
        channel = self._channels.get(name)
        own = channel if channel and channel.reader is self else None
        match message["type"]:
            case "smessage" if own:
                metrics.EVENTS.inc()
                n, _, frame = message["data"].partition(b" ")
                for stream in own.streams:
                    stream.push(int(n), frame)
            case "ssubscribe" if own:
                self._confirmed(name, own)
            case "sunsubscribe" if name in self._leaving:
                self._leaving = self._leaving - Counter([name])
            case "sunsubscribe" if own:
                # The node's own doing: the slot has moved.
                own.reader = None
                own.in_force.clear()
                self._nodes.suspect()

    def _confirmed(self, name: str, channel: Channel) -> None:
        channel.asked = max(channel.asked - 1, 0)
        if channel.asked:
            return
        channel.in_force.set()
        # Streams that go on from an old connection have not heard what came before this.
        for stream in channel.streams:
            stream.fall_behind()
        if not channel.streams:
            del self._channels[name]

    def ask(self, name: str, channel: Channel) -> None:
        """Subscribe to a channel that is this reader's own."""
        # Without a connection nothing is sent: all channels are once there is one.
        if self._pubsub is not None:
            channel.asked += 1
            self._order(name, subscribe=True)

    def leave(self, name: str) -> None:
        """Unsubscribe from a channel."""
        if self._pubsub is not None:
            self._order(name, subscribe=False)

    def _order(self, name: str, *, subscribe: bool) -> None:
        """What comes in one turn of the loop goes out in one command; the order stays."""
        self._orders.append((name, subscribe))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_orders(), name="relay-orders")

    async def _send_orders(self) -> None:
        try:
            while self._orders:
                pubsub, orders, self._orders = self._pubsub, self._orders, []
                for subscribe, group in itertools.groupby(orders, key=lambda order: order[1]):
                    # A new connection has got all channels anew; orders for an old one must not reach it.
                    if pubsub is not None and pubsub is self._pubsub:
                        await self._send(pubsub, [name for name, _ in group], subscribe=subscribe)
        finally:
            self._sending = None

    async def _send(self, pubsub: Any, names: list[str], *, subscribe: bool) -> None:
        """Send orders, one command for each slot, as a cluster wants it."""
        for _, group in itertools.groupby(sorted(names), key=_partition):
            some = list(group)
            if not subscribe:
                self._leaving.update(some)
            await _send(pubsub, some, subscribe=subscribe)


def _partition(channel: str) -> str:
    return channel.partition("}")[0]


def _tell(error: Exception) -> None:
    if isinstance(error, (RedisError, OSError)) and is_away(error):
        log.warning("redis_away", error=str(error))
    else:
        log.error("relay_failed", exc_info=error)


async def _send(pubsub: Any, names: list[str], *, subscribe: bool) -> None:
    """Send one command. Only the reader connects again: two on one connection would break it."""
    connection = pubsub.connection
    if connection is None or not connection.is_connected:
        return
    with contextlib.suppress(Exception):  # whatever it is, the reader notices that the connection is gone
        # Not pubsub.subscribe: when it cannot send, it connects again by itself.
        await connection.send_command("SSUBSCRIBE" if subscribe else "SUNSUBSCRIBE", *names)
