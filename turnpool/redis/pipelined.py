"""Commands go out together in pipelines: those given while one is under way are the next.

A burst of turns is then some round trips, not some per turn; a lone command waits for nothing. A pipeline
costs redis-py as much as a dozen commands in it.
"""

import asyncio
from typing import Any

from redis.asyncio import Redis

Command = tuple[Any, ...]

# Commands in one pipeline; more would keep others waiting for Redis.
MAX_COMMANDS = 200
# Seconds that commands wait for the pipeline under way: a server that hangs holds up no more than it did.
MAX_HOLD = 0.005


class Pipelined:
    """Executes commands of many callers together. Belongs to one event loop."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[tuple[Command, asyncio.Future[Any]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent: set[asyncio.Future[Any]] = set()
        self._held: asyncio.TimerHandle | None = None

    async def execute(self, name: str, *arguments: Any) -> Any:
        """Execute one command. Raises what redis-py raises for it, UnicodeEncodeError for a broken text."""
        # Here and not in the pipeline, where a wrong argument would fail the commands of others.
        command = (name, *[part.encode() if isinstance(part, str) else part for part in arguments])
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((command, answer))
        if len(self._waiting) == 1:
            loop.call_soon(self._begin)
        return await answer

    def give_up(self, error: Exception) -> None:
        """Tell all callers that wait for an answer that none comes; their commands may be carried out."""
        for answer in self._sent:
            if not answer.done():
                answer.set_exception(error)

    def _begin(self) -> None:
        if self._tasks:
            self._held = asyncio.get_running_loop().call_later(MAX_HOLD, self._start)
        else:
            self._start()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._held and not self._tasks:
            self._held.cancel()
            self._start()

    def _start(self) -> None:
        self._held = None
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), MAX_COMMANDS):
            task = asyncio.create_task(self._send(waiting[start : start + MAX_COMMANDS]))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _send(self, calls: list[tuple[Command, asyncio.Future[Any]]]) -> None:
        replies: list[Any]
        answers = {answer for _, answer in calls}
        self._sent |= answers
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for command, _ in calls:
                    pipeline.execute_command(*command)
                replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - the callers get it
            replies = [error] * len(calls)
        self._sent -= answers
        for (_, answer), reply in zip(calls, replies, strict=True):
            if answer.done():
                continue  # its caller was cancelled, or given up
            if isinstance(reply, Exception):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)
