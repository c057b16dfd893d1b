"""Posts turns and reads their streams, whatever breaks on the way."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.acceptance.sse import Answer
from tests.acceptance.sse import request as send
from tests.chaos.book import Book
from tests.chaos.plans import Post, Style
from tests.chaos.pool import Fleet
from tests.chaos.reading import Reading
from tests.conftest import wait_until

# Seconds: until a request counts as unanswered, until a silent stream does (a ping comes after 15), and
# between two tries.
ANSWER, SILENCE, PAUSE = 6.0, 20.0, 0.2
# Seconds a turn may take from its post to its end: several faults may befall it, one after the other.
LONGEST = 120.0
# Events that a client reads before it gives up, before it hops, and as long as they come.
FEW, HOP, ALL = 4, 12, 10**9
# Bytes that a client takes in before they are wanted; a slow one makes the API wait.
ROOM, SIP = 2**22, 200
BROKEN = (OSError, EOFError, IndexError, TimeoutError)


@dataclass
class Known:
    """What the clients know of the turns: readings by turn id, ids by key, keys of which nothing is known.

    `watched`: readings on the stream of the session.
    """

    readings: dict[str, Reading] = field(default_factory=dict)
    posted: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    watched: dict[str, Reading] = field(default_factory=dict)


class Client:
    """One user of the API."""

    def __init__(self, fleet: Fleet, book: Book, known: Known, rng: random.Random) -> None:
        self._fleet, self._book, self._known, self._rng = fleet, book, known, rng

    async def turn(self, post: Post) -> None:
        """Post a turn and see it through to its end."""
        try:
            async with asyncio.timeout(LONGEST):
                await self._turn(post)
        except TimeoutError:
            where = self._known.posted.get(post.key, "not answered")
            self._book.violation("turn that does not end", f"{post.key}: {where}, {post.style}")

    async def _turn(self, post: Post) -> None:
        if post.delete_after is None:
            self._known.sessions.add(post.session)
        started = time.monotonic()
        turn_id, answer = await self._post(post)
        if turn_id is None:
            return
        self._book.seen["turns accepted"] += 1
        if post.delete_after is not None:
            await self._delete(post, turn_id, answer, post.delete_after)
            return
        reading = Reading(turn_id, post.tokens, self._book)
        known = self._known.posted.setdefault(post.key, turn_id)
        self._book.expect(known == turn_id, "one post, two turns", f"{post.key}: {known}, {turn_id}")
        self._known.readings[turn_id] = reading
        async with asyncio.TaskGroup() as group:
            if post.cancel_after is not None:
                group.create_task(self._cancel(turn_id, post.cancel_after))
            group.create_task(self._see(post, reading, answer))
        self._book.figure("seconds from post to end", time.monotonic() - started)

    async def _post(self, post: Post) -> tuple[str | None, Answer | None]:
        """The turn's id if it was accepted, and its stream if that was asked for."""
        lose = post.lose_answer
        headers = {"Idempotency-Key": post.key} if post.keyed else {}
        if post.style is Style.DIRECT:
            headers["Accept"] = "text/event-stream"
        path = f"/v1/sessions/{post.session}/turns"
        while True:
            try:
                async with self.request("POST", path, post.body, headers, hang_up=lose) as answer:
                    if answer.status == 200:
                        return answer.headers["location"].split("/")[3], answer
                    told = await answer.body()
            except BROKEN:
                self._book.seen["posts without an answer"] += 1
                lose = False
                if not post.keyed:
                    self._known.unknown.add(post.key)
                    return None, None
                await asyncio.sleep(PAUSE)
                continue
            if (accepted := await self._accepted(post, answer, told)) is not None:
                return accepted or None, None

    async def _accepted(self, post: Post, answer: Answer, told: dict[str, Any]) -> str | None:
        """The turn's id; empty if there is none; None if the post should be tried again."""
        if answer.status == 202:
            self._book.seen["posts replayed"] += "idempotent-replayed" in answer.headers
            return str(told["id"])
        self._book.seen[f"{answer.status} {told['code']}"] += 1
        if told["code"] == "session_busy" and post.on_busy == "reject":
            return ""
        again = answer.status in (429, 503) and "retry-after" in answer.headers
        self._book.expect(again, "unexpected answer", f"{post.key}: {answer.status} {told}")
        # Without a key nobody knows whether it was carried out before Redis went away.
        if not again or (told["code"] == "redis_away" and not post.keyed):
            self._known.unknown.add(post.key)
            return ""
        await asyncio.sleep(PAUSE)
        return None

    async def _cancel(self, turn_id: str, after: float) -> None:
        await asyncio.sleep(after)
        self._known.cancelled.add(turn_id)
        status = 0
        while status not in (200, 202):
            status, _ = await self.call("POST", f"/v1/turns/{turn_id}/cancel")

    async def _delete(self, post: Post, turn_id: str, answer: Answer | None, after: float) -> None:
        """Delete the session while its turn runs: soon nothing is left of it."""
        if answer:
            answer.writer.transport.abort()
        await asyncio.sleep(after)
        status = 0
        while status not in (204, 404):
            status, _ = await self.call("DELETE", f"/v1/sessions/{post.session}")
        # A turn that runs is deleted once its worker knows; if that was killed, once another does.

        async def gone() -> bool:
            return (await self.call("GET", f"/v1/turns/{turn_id}"))[0] == 404

        await wait_until(gone, LONGEST)
        self._book.seen["sessions deleted with a turn"] += 1

    async def _see(self, post: Post, reading: Reading, answer: Answer | None) -> None:
        """Read the turn to its end in the client's own way."""
        if answer:
            await self._read(answer, reading, ALL)
        elif post.style is Style.GIVE_UP:
            await self._follow(reading, FEW)
        if post.style in (Style.GIVE_UP, Style.WAIT):
            await self._wait(reading)
            return
        port, most = 0, HOP if post.style is Style.HOP else ALL
        while not reading.status:
            port = await self._follow(reading, most, slow=post.style is Style.SLOW, other_than=port)

    async def _follow(self, reading: Reading, most: int, *, slow: bool = False, other_than: int = 0) -> int:
        """Read on from the last event, on another API if there is one; gives its port."""
        headers = {"Last-Event-ID": str(reading.last)}
        port = self._fleet.port(other_than)
        with suppress(*BROKEN):
            path = f"/v1/turns/{reading.turn_id}/events"
            limit = SIP if slow else ROOM
            async with self.request("GET", path, None, headers, port=port, limit=limit) as answer:
                if answer.status == 200:
                    await self._read(answer, reading, most, slow=slow)
                else:
                    self._book.seen[f"{answer.status} on a stream"] += 1
                    place = f"{reading.turn_id} after {reading.last}: {answer.status}"
                    self._book.expect(answer.status == 503, "stream refused", place)
        if not reading.status:
            self._book.seen["reconnections"] += 1
            await asyncio.sleep(PAUSE)
        return port

    async def _read(self, answer: Answer, reading: Reading, most: int, *, slow: bool = False) -> None:
        """Read a stream until it ends, breaks, is silent or is enough."""
        frames = answer.frames()
        connected = time.time()
        try:
            for _ in range(most):
                frame = await asyncio.wait_for(anext(frames), SILENCE)
                reading.take(frame.id, frame.event, frame.data)
                self._book.seen["events read"] += 1
                if not slow:
                    self._book.came(reading.turn_id, max(frame.data["created_at"], connected))
                else:
                    await asyncio.sleep(self._rng.uniform(0, 0.1))
        except StopAsyncIteration:
            if not reading.status:
                self._book.seen["streams that said good-bye"] += 1
        except AssertionError as error:
            self._book.violation("frame split or malformed", f"{reading.turn_id}: {error}")
        except json.JSONDecodeError as error:
            self._book.violation("frame split or malformed", f"{reading.turn_id}: {error}")
        except (*BROKEN, ValueError):
            self._book.seen["streams cut"] += 1
        finally:
            answer.writer.transport.abort()

    async def _wait(self, reading: Reading) -> None:
        """Wait for the end by REST, then read the log."""
        ended = False
        while not ended:
            status, turn = await self.call("GET", f"/v1/turns/{reading.turn_id}?wait=10", seconds=15)
            ended = status == 200 and turn["status"] in ("completed", "failed", "cancelled")
        await self.read_log(reading)

    async def read_log(self, reading: Reading) -> None:
        """Read what comes after the last event at once, from the log as JSON."""
        cursor: str | None = str(reading.last)
        while cursor is not None:
            page = await self.get(f"/v1/turns/{reading.turn_id}/events?follow=false&after={cursor}")
            for event in page["events"]:
                reading.take(event["seq"], event["type"], event)
            cursor = page["next_cursor"]

    async def get(self, path: str) -> Any:
        """The answer's body, once there is one."""
        status, body = await self.call("GET", path)
        while status in (0, 503):
            status, body = await self.call("GET", path)
        self._book.expect(status == 200, "unexpected answer", f"{path}: {status} {body}")
        return body

    async def call(self, method: str, path: str, *, seconds: float = ANSWER) -> tuple[int, Any]:
        """Status and body; status 0 if there was no answer."""
        try:
            async with (
                self.request(method, path, None, {}, seconds=seconds) as answer,
                asyncio.timeout(seconds),
            ):
                return answer.status, await answer.body()
        except BROKEN:
            self._book.seen["calls without an answer"] += 1
            await asyncio.sleep(PAUSE)
            return 0, None

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        body: Any,
        headers: dict[str, str],
        *,
        port: int = 0,
        seconds: float = ANSWER,
        limit: int = ROOM,
        hang_up: bool = False,
    ) -> AsyncIterator[Answer]:
        """Send a request to some API. Raises what `BROKEN` names if there is no answer."""
        port = port or self._fleet.port()
        if not port:
            await asyncio.sleep(PAUSE)
            raise ConnectionError
        async with asyncio.timeout(self._rng.uniform(0.001, 0.03) if hang_up else seconds):
            answer = await send(port, method, path, body, headers, limit)
        if hang_up:
            answer.writer.transport.abort()
            raise ConnectionError
        taken = False
        try:
            yield answer
            # A stream may be read on by whoever asked for it.
            taken = answer.status == 200
        finally:
            if not taken:
                answer.writer.transport.abort()
