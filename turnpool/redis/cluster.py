"""The primaries of a cluster, and which partition each has.

Not redis-py's own RedisCluster, for what it does behind the caller's back: it sends commands again that
may have been carried out, gives up the answers of all nodes when one is away, closes connections that
others use when a slot moves, and follows ASK.

ASK is not followed here. A script names no key but its partition's prefix, which never exists, so while a
slot is moved key by key its old node answers ASK to every script: for so long the partition is away. On
the new node a script would find half of its keys.
"""

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MovedError
from redis.exceptions import TimeoutError as RedisTimeoutError

from turnpool import keys
from turnpool.logs import get_logger
from turnpool.redis.connections import ANSWER_TIMEOUT, connect
from turnpool.redis.errors import DRIVER_ERRORS, is_away
from turnpool.redis.nodes import Node, Nodes, OneNode, answers
from turnpool.redis.pipelined import Command
from turnpool.redis.urls import Kind, RedisUrl

log = get_logger(__name__)

Address = tuple[str, int]

# Answers MOVED that a command follows; more than these, and the nodes do not agree yet.
MAX_MOVES = 3
# Seconds between two looks: at first, and at most, as long as they find nothing new.
FIRST_PAUSE, MAX_PAUSE = 0.1, 0.5
# Seconds one node gets to answer a look.
LOOK_SECONDS = 1.0
# Seconds a pipeline waits for one node while the others have answered: healthy ones must not wait for one
# that hangs, and idempotent is what goes through `many`.
NODE_ANSWER_SECONDS = 1.0
# Seconds before the connections of a node that is gone are closed: its last answers have come.
FORMER_NODE_SECONDS = 2 * ANSWER_TIMEOUT


class Cluster(Nodes):
    """Finds the primaries from some nodes, and again whenever one is away or a slot has moved."""

    def __init__(self, url: RedisUrl, namespace: str, connections: int) -> None:
        self.prefixes = tuple(
            keys.prefix(namespace, name) for name in keys.partitions(keys.CLUSTER_PARTITIONS)
        )
        self._slots = {prefix: key_slot(prefix.encode()) for prefix in self.prefixes}
        self._url = url
        self._connections = connections
        self._seeds = list(url.hosts)
        self._nodes: dict[Address, Node] = {}
        self._owners: dict[str, Address] = {}
        self._former: list[tuple[float, Node]] = []
        self._watchers: list[Callable[[], None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._look_after = 0.0
        self._pause = FIRST_PAUSE
        self._closed = False
        self._asks: set[asyncio.Task[Exception | None]] = set()
        self._node_timed_out: dict[asyncio.Task[list[Any]], Node | None] = {}

    async def _execute(self, prefix: str, *command: Any) -> Any:
        """As described in Nodes."""
        for _ in range(MAX_MOVES):
            node = await self._owner(prefix)
            try:
                return await node.execute(*command)
            except MovedError as error:  # it was not carried out
                self._moved(prefix, error)
            except DRIVER_ERRORS as error:
                self._failed(error)
                raise
        raise ClusterDownError("the nodes do not agree on who has the slot")

    async def _many(self, commands: Sequence[tuple[str, Command]]) -> list[Any]:
        """As described in Nodes."""
        if not commands:
            return []
        await self._find()
        of_node: dict[Node | None, list[int]] = defaultdict(list)
        for index, (prefix, _) in enumerate(commands):
            of_node[self.node_of(prefix)].append(index)
        asks = {
            asyncio.create_task(self._ask(node, [commands[index][1] for index in indexes])): (node, indexes)
            for node, indexes in of_node.items()
        }
        await asyncio.wait(asks, timeout=NODE_ANSWER_SECONDS)
        replies: list[Any] = [None] * len(commands)
        for task, (node, indexes) in asks.items():
            if not task.done():
                self.suspect()
                self._node_timed_out[task] = node
                task.add_done_callback(self._node_timed_out.pop)
            answered = task.result() if task.done() else [_node_timed_out()] * len(indexes)
            for index, reply in zip(indexes, answered, strict=True):
                replies[index] = reply
        for index, reply in enumerate(replies):
            if isinstance(reply, MovedError):
                replies[index] = await self._again(reply, *commands[index])
        return replies

    async def _ask(self, node: Node | None, commands: list[Command]) -> list[Any]:
        try:
            if node is None:
                raise _partition_without_node()
            if node in self._node_timed_out.values():
                raise _node_timed_out()
            return await node.many(commands)
        except DRIVER_ERRORS as error:
            self._failed(error)
            return [error] * len(commands)

    async def _again(self, moved: MovedError, prefix: str, command: Command) -> Any:
        self._moved(prefix, moved)
        try:
            return await self._execute(prefix, *command)
        except DRIVER_ERRORS as error:
            return error

    def node_of(self, prefix: str) -> Node | None:
        """As described in Nodes."""
        address = self._owners.get(prefix)
        return self._node(address) if address else None

    async def _find(self) -> None:
        """As described in Nodes."""
        if not self._owners:
            await asyncio.shield(self._look())

    def suspect(self) -> None:
        """As described in Nodes."""
        if not self._closed:
            self._look()

    def watch(self, changed: Callable[[], None]) -> None:
        """As described in Nodes."""
        self._watchers.append(changed)

    async def _ping(self) -> list[Exception | None]:
        """As described in Nodes."""
        await self._find()
        asks = self._ask_all()
        if asks:
            await asyncio.wait(asks, timeout=NODE_ANSWER_SECONDS)
        found = [task.result() if task.done() else _node_timed_out() for task in asks]
        found += [_partition_without_node()] * any(self.node_of(prefix) is None for prefix in self.prefixes)
        for error in found:
            if error:
                self._failed(error)
        return found

    async def _reachable(self) -> bool:
        """As described in Nodes."""
        await self._find()
        asks = self._ask_all()
        while asks:
            done, asks = await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() is None for task in done):
                return True
        return False

    def _ask_all(self) -> set[asyncio.Task[Exception | None]]:
        """Ask every node whether it answers. Nobody need wait for all: one that hangs times out."""
        nodes = {self.node_of(prefix) for prefix in self.prefixes}
        asks = {asyncio.create_task(answers(node)) for node in nodes if node}
        self._asks |= asks
        for task in asks:
            task.add_done_callback(self._asks.discard)
        return asks

    async def close(self) -> None:
        """As described in Nodes."""
        self._closed = True
        if self._looking:
            await asyncio.wait({self._looking})
        for node in (*self._nodes.values(), *(node for _, node in self._former)):
            await node.close()

    async def _owner(self, prefix: str) -> Node:
        await self._find()
        node = self.node_of(prefix)
        if node is None:
            self.suspect()
            raise _partition_without_node()
        return node

    def _failed(self, error: Exception) -> None:
        if is_away(error):
            self.suspect()

    def _moved(self, prefix: str, error: MovedError) -> None:
        # A node that does not know the other's name gives none: it is the one it was asked by.
        host = error.host or self._owners.get(prefix, self._seeds[0])[0]
        self._owners[prefix] = (host, error.port)
        self.suspect()

    def _node(self, address: Address) -> Node:
        if address not in self._nodes:
            self._nodes[address] = Node(connect(self._url.node(*address), connections=self._connections))
        return self._nodes[address]

    def _look(self) -> asyncio.Task[None]:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_soon(), name="cluster")
            self._looking.add_done_callback(self._have_looked)
        return self._looking

    def _have_looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled():
            # Who waits for it gets the error; who only suspected something meets it again.
            task.exception()
            for changed in self._watchers:
                changed()

    async def _look_soon(self) -> None:
        now = asyncio.get_running_loop().time
        if self._look_after + MAX_PAUSE < now():
            self._pause = FIRST_PAUSE
        await asyncio.sleep(self._look_after - now())
        try:
            found = await self._table()
        finally:
            self._look_after = now() + self._pause
            self._pause = min(2 * self._pause, MAX_PAUSE)
        before = self._owners
        self._owners = {
            prefix: address
            for prefix, slot in self._slots.items()
            for first, last, address in found
            if first <= slot <= last
        }
        if before != self._owners:
            self._pause = FIRST_PAUSE
            log.info("cluster_found", primaries=len(set(self._owners.values())))
            for address in set(before.values()) - set(self._owners.values()):
                # One that answers does so by now; of one that hangs nothing is to be hoped.
                asyncio.get_running_loop().call_later(NODE_ANSWER_SECONDS, self._give_up, address)
        kept = {*self._owners.values(), *self._seeds}
        for address in [address for address in self._nodes if address not in kept]:
            self._former.append((now() + FORMER_NODE_SECONDS, self._nodes.pop(address)))
        while self._former and self._former[0][0] < now():
            with contextlib.suppress(*DRIVER_ERRORS):
                await self._former.pop(0)[1].close()

    def _give_up(self, address: Address) -> None:
        nodes = [node for _, node in self._former]
        if address in self._nodes and address not in self._owners.values():
            nodes.append(self._nodes[address])
        for node in nodes:
            node.give_up(_node_timed_out())

    async def _table(self) -> list[tuple[int, int, Address]]:
        """Ranges of slots and their primaries, as the first node that answers sees them."""
        failed: Exception | None = None
        places = list({*self._nodes, *self._seeds})
        random.shuffle(places)
        for address in places:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    reply = await self._node(address).execute("CLUSTER", "SLOTS")
            except DRIVER_ERRORS as error:
                failed = error
            else:
                return [
                    (int(first), int(last), _address(primary, address)) for first, last, primary, *_ in reply
                ]
        raise failed or _partition_without_node()


def _address(primary: list[Any], asked: Address) -> Address:
    """A node as CLUSTER SLOTS names it; one that does not know its own name is the one that was asked."""
    host, port = primary[:2]
    return (host.decode() if host and host != b"?" else asked[0]), int(port)


def _partition_without_node() -> ClusterDownError:
    return ClusterDownError("no node has the slot of this partition")


def _node_timed_out() -> RedisTimeoutError:
    return RedisTimeoutError("the node of this partition does not answer")


def open_nodes(url: RedisUrl, namespace: str, connections: int) -> Nodes:
    """The servers that a URL names, with so many connections to each; none is made yet."""
    if url.kind is Kind.CLUSTER:
        return Cluster(url, namespace, connections)
    return OneNode(connect(url, connections=connections), namespace, url.database)
