"""Where the partitions are: all on one server, or spread over the primaries of a cluster."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from redis.asyncio import Redis

from turnpool import keys
from turnpool.redis.errors import DRIVER_ERRORS, translated, translating
from turnpool.redis.pipelined import Command, Pipelined


class Node:
    """One server."""

    def __init__(self, redis: Redis) -> None:
        # redis-py's reply types are unions of what any option could give; ours are bytes.
        self.redis: Any = redis
        self._pipelined = Pipelined(redis)

    async def execute(self, *command: Any) -> Any:
        """Execute a command, in one round trip with others that come meanwhile (`pipelined.py`)."""
        return await self._pipelined.execute(*command)

    async def many(self, commands: Iterable[Command]) -> list[Any]:
        """Execute commands in one pipeline; for each its answer or error. Raises if the server is away."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    def give_up(self, error: Exception) -> None:
        """No answer of this node is waited for any more."""
        self._pipelined.give_up(error)

    async def close(self) -> None:
        """Close the connections."""
        await self.redis.aclose()


class Nodes(ABC):
    """The servers of a store. `prefixes`: of its partitions; `database`: its number on its server."""

    prefixes: tuple[str, ...]
    database: int = 0

    def prefix_of(self, name: str) -> str:
        """Prefix of the partition that a session or a queue belongs to."""
        if len(self.prefixes) == 1:
            return self.prefixes[0]
        return self.prefixes[zlib.crc32(name.encode()) % len(self.prefixes)]

    async def execute(self, prefix: str, *command: Any) -> Any:
        """Execute a command where the partition is. It is not tried again if it may have been carried out.

        Raises StoreAwayError.
        """
        try:
            return await self._execute(prefix, *command)
        except DRIVER_ERRORS as error:
            raise translated(error)  # noqa: B904 - it has its cause

    async def many(self, commands: Sequence[tuple[str, Command]]) -> list[Any]:
        """Execute commands, each with its partition's prefix, in one pipeline for each node.

        Gives each one's answer or error. For what may be carried out though it failed, and again.
        """
        with translating():
            replies = await self._many(commands)
        return [translated(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def find(self) -> None:
        """Find out where the partitions are, if that is not known. Raises StoreAwayError."""
        with translating():
            await self._find()

    @abstractmethod
    async def _execute(self, prefix: str, *command: Any) -> Any:
        """As `execute`; raises what redis-py raises."""

    @abstractmethod
    async def _many(self, commands: Sequence[tuple[str, Command]]) -> list[Any]:
        """As `many`, with redis-py's errors."""

    @abstractmethod
    async def _find(self) -> None:
        """As `find`; raises what redis-py raises."""

    @abstractmethod
    def node_of(self, prefix: str) -> Node | None:
        """The node that a partition is on, None as long as that is not known."""

    @abstractmethod
    def suspect(self) -> None:
        """Something was not where it should be: look again soon, and tell those who watch."""

    @abstractmethod
    def watch(self, changed: Callable[[], None]) -> None:
        """Call this whenever partitions may have moved."""

    async def ping(self) -> list[Exception | None]:
        """Ask every node whether it answers: for each None, or the error. Raises StoreAwayError."""
        with translating():
            found = await self._ping()
        return [error and translated(error) for error in found]

    async def reachable(self) -> bool:
        """Whether any node answers, as soon as one has. Raises StoreAwayError."""
        with translating():
            return await self._reachable()

    @abstractmethod
    async def _ping(self) -> list[Exception | None]:
        """As `ping`, with redis-py's errors."""

    @abstractmethod
    async def _reachable(self) -> bool:
        """As `reachable`; raises what redis-py raises."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""


class OneNode(Nodes):
    """A standalone server, or the primary that Sentinels name."""

    def __init__(self, redis: Redis, namespace: str, database: int) -> None:
        self.prefixes = (keys.prefix(namespace, "0"),)
        self.database = database
        self.node = Node(redis)

    async def _execute(self, prefix: str, *command: Any) -> Any:  # noqa: ARG002 - there is one partition
        """As described above."""
        return await self.node.execute(*command)

    async def _many(self, commands: Sequence[tuple[str, Command]]) -> list[Any]:
        """As described above."""
        try:
            return await self.node.many(command for _, command in commands)
        except DRIVER_ERRORS as error:
            return [error] * len(commands)

    def node_of(self, prefix: str) -> Node:  # noqa: ARG002 - same
        """As described above."""
        return self.node

    async def _find(self) -> None:
        """It is known."""

    def suspect(self) -> None:
        """It stays where it is; a new connection asks the Sentinels."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Nothing moves."""

    async def _ping(self) -> list[Exception | None]:
        """As described above."""
        return [await answers(self.node)]

    async def _reachable(self) -> bool:
        """As described above."""
        return await answers(self.node) is None

    async def close(self) -> None:
        """As described above."""
        await self.node.close()


async def answers(node: Node) -> Exception | None:
    """Ask a node whether it answers: None, or the error."""
    try:
        await node.execute("PING")
    except DRIVER_ERRORS as error:
        return error
    return None
