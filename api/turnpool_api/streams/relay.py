"""One pub/sub connection to each Redis node for all streams of a process.

Sharded pub/sub: a session's events are told by the node that has its partition, and passed on as the
bytes that came. When partitions move, their channels are subscribed to anew where they are now, and
their streams go on from the log.
"""

import asyncio
from collections.abc import Collection

from turnpool.redis.nodes import Node
from turnpool.store.store import Store
from turnpool_api import metrics
from turnpool_api.streams.budget import Budget
from turnpool_api.streams.reader import AWAY_PAUSE, Channel, Channels, Reader, log_connection_error
from turnpool_api.streams.subscription import Subscription
from turnpool_api.streams.tasks import end

Readers = dict[Node, tuple[Reader, asyncio.Task[None]]]


class Relay:
    """Subscribes to sessions' channels, each at the node that has it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._channels: Channels = {}
        self._readers: Readers = {}
        self._closing = False
        self._budget = Budget()
        self._changed = asyncio.Event()
        store.nodes.watch(self._changed.set)

    def subscribe(self, session_id: str, tenant: str) -> Subscription:
        """Subscribe to a tenant's session. Events arrive once Redis has confirmed the subscription."""
        prefix, name = self._store.channel(session_id, tenant)
        channel = self._channels.setdefault(name, Channel(prefix))

        def leave(subscription: Subscription) -> None:
            if subscription in channel.streams:
                channel.streams.discard(subscription)
                metrics.STREAMS.dec()
                if not channel.streams:
                    self._leave(name, channel)

        subscription = Subscription(leave, self._budget, is_confirmed=channel.is_confirmed)
        channel.streams.add(subscription)
        metrics.STREAMS.inc()
        if len(channel.streams) == 1:
            self._ask(name, channel)
        subscription.is_requested = channel.asked > 0
        if self._closing:
            subscription.close()
        return subscription

    def close(self, spared: Collection[Subscription] = ()) -> None:
        """End all streams but those spared; streams opened later end at once."""
        self._closing = True
        for channel in self._channels.values():
            for stream in channel.streams:
                if stream not in spared:
                    stream.close()

    async def run(self) -> None:
        """See to it that every node is read from, until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self._store.nodes.find()
            except Exception as error:  # noqa: BLE001 - told, and tried again
                log_connection_error(error)
                await asyncio.sleep(AWAY_PAUSE)
            else:
                await self._follow()
                await self._changed.wait()

    async def end(self) -> None:
        """Read no more, once `run` has ended."""
        await end(task for _, task in self._readers.values())

    async def _follow(self) -> None:
        """A reader for each node that has partitions; each channel to the reader of its node."""
        nodes = self._store.nodes
        there = {node for prefix in nodes.prefixes if (node := nodes.node_of(prefix))}
        gone = [node for node in self._readers if node not in there]
        await end(self._readers[node][1] for node in gone)
        for node in gone:
            del self._readers[node]
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

    def _reader(self, channel: Channel) -> Reader | None:
        node = self._store.nodes.node_of(channel.prefix)
        found = self._readers.get(node) if node else None
        return found[0] if found else None

    def _ask(self, name: str, channel: Channel) -> None:
        channel.hear(is_confirmed=False)
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
