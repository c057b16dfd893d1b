"""Pages of what grows without bound: messages, turns, events. Each is bounded in number and in bytes.

The bound in bytes holds where the page is made, in Redis: nothing larger is sent to a process. A message,
turn or event that is larger makes a page alone.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Any

import orjson

from turnpool.agent import Message
from turnpool.errors import SessionNotFoundError, StoreAwayError
from turnpool.ids import scoped, session_of
from turnpool.models import BODIES, TurnRecord
from turnpool.redis.connections import ANSWER_TIMEOUT
from turnpool.redis.nodes import Nodes
from turnpool.store import scripts

PAGE_BYTES = 1_000_000
"""Bytes of one page in an answer: as large as the largest post by default."""
PAGES_AT_ONCE = 4
"""Pages of that size that one process reads at once; the next ones wait. More would be no quicker."""
LOGS_AT_ONCE = 32
"""Pages of logs that one process reads at once: what other clients wait for goes between them."""
SLOT_SECONDS = ANSWER_TIMEOUT
"""Longest wait for one of those places; a store that hangs keeps them, and is away for those who wait too."""
LOG_PAGE = 500
"""Events of one page of a log."""
LOG_PAGE_BYTES = 128 * 1024
"""Bytes of one page of a log, where its reader gives no bound."""

# What a list reads of each turn; `id` is there in every one.
LISTED = (
    "id", "session", "tenant", "queue", "agent", "status", "priority", "attempt", "losses", "seq", "worker",
    "created_at", "deadline_at", "started_at", "ended_at", "usage", "finish_reason", "error_code",
    "error_message",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Messages as stored (JSON), and the index of the next page's first one, None after the last page."""

    messages: list[bytes]
    following: int | None


@dataclass(frozen=True, slots=True)
class ListedTurn:
    """A turn in a list: its record without bodies, and those that were asked for, as stored."""

    record: TurnRecord
    bodies: dict[str, bytes]


class Pages:
    """What is read page by page."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self._page_slots = asyncio.Semaphore(PAGES_AT_ONCE)
        self._log_slots = asyncio.Semaphore(LOGS_AT_ONCE)

    def page_slot(self) -> contextlib.AbstractAsyncContextManager[None]:
        """A place among those who read large pages now; it may be waited for."""
        return _slot(self._page_slots)

    def prefix_of(self, session_id: str) -> str:
        """Prefix of a session's partition, by its scoped id."""
        return self.nodes.prefix_of(session_id)

    def prefix_of_turn(self, turn_id: str) -> str:
        """Prefix of the partition of a turn's session, by the turn's scoped id."""
        return self.nodes.prefix_of(session_of(turn_id))

    async def message_page(
        self,
        session_id: str,
        tenant: str,
        limit: int,
        start: int | None = None,
        *,
        newest_first: bool = False,
    ) -> MessagePage:
        """A session's messages from an index on. Raises SessionNotFoundError.

        Messages are only ever added, so an index is the same message for as long as the session lives.
        """
        if start is None:
            start = -1 if newest_first else 0
        step = -1 if newest_first else 1
        reply = await self._page("read_messages", session_id, tenant, start, step, limit, PAGE_BYTES)
        return MessagePage(reply[1:], None if reply[0] < 0 else reply[0])

    async def messages(self, session_id: str, tenant: str) -> list[Message]:
        """All messages of a session, oldest first, none if it is gone. For tools: it may be any amount."""
        found: list[Message] = []
        following: int | None = 0
        with contextlib.suppress(SessionNotFoundError):
            while following is not None:
                page = await self.message_page(session_id, tenant, LOG_PAGE, following)
                found += map(orjson.loads, page.messages)
                following = page.following
        return found

    async def turns(
        self, session_id: str, tenant: str, limit: int, before: int | None, include: Collection[str] = ()
    ) -> tuple[list[ListedTurn], int | None]:
        """Turns of a session with a number below `before`, newest first, and `before` of the next page.

        `include`: which of BODIES are read. Raises SessionNotFoundError.
        """
        bodies = [name for name in BODIES if name in include]
        below = "" if before is None else before
        names = (*LISTED, *bodies)
        following, *rows = await self._page(
            "read_turns", session_id, tenant, below, limit, PAGE_BYTES, *names
        )
        turns = []
        for row in rows:
            fields = {name: value for name, value in zip(names, row, strict=True) if value is not None}
            included = {name: fields.pop(name) for name in bodies if name in fields}
            record = TurnRecord.from_hash({name.encode(): value for name, value in fields.items()})
            turns.append(ListedTurn(record, included))
        return turns, following + 1 if following else None

    async def frames(
        self, turn_id: str, tenant: str, after: int, max_bytes: int = LOG_PAGE_BYTES, limit: int = LOG_PAGE
    ) -> list[bytes]:
        """Some events of a turn after a seq, as SSE frames: one at least if there is any."""
        name = scoped(tenant, turn_id)
        prefix = self.prefix_of_turn(name)
        async with _slot(self._log_slots):
            found: list[bytes] = await scripts.run(
                self.nodes, "read_log", prefix, name, after, limit, max_bytes
            )
        return found

    async def _page(self, script: str, session_id: str, tenant: str, *arguments: scripts.Argument) -> Any:
        async with self.page_slot():
            name = scoped(tenant, session_id)
            reply = await scripts.run(self.nodes, script, self.prefix_of(name), name, *arguments)
        if reply == 0:
            raise SessionNotFoundError(session_id)
        return reply


@contextlib.asynccontextmanager
async def _slot(slots: asyncio.Semaphore) -> AsyncIterator[None]:
    """One of some places, for as long as it is entered. Raises StoreAwayError if none gets free in time."""
    try:
        async with asyncio.timeout(SLOT_SECONDS if slots.locked() else None):
            await slots.acquire()
    except TimeoutError:
        raise StoreAwayError("it answers no reader of large pages") from None
    try:
        yield
    finally:
        slots.release()
