"""Follows a session's stream beside its turns' own: all turns on one, over many connections."""

import asyncio
from contextlib import suppress
from typing import Self

from tests.acceptance.sse import Answer
from tests.chaos.book import Book
from tests.chaos.client import BROKEN, PAUSE, SILENCE, Client, Known
from tests.chaos.reading import Reading
from tests.conftest import wait_until

# Seconds until it has seen the end of turns that have ended: a few connections, if Redis is away.
BEHIND = 60.0
# Events that it reads on a connection before it goes to another API, and as many again.
HOP = 200


class Watcher:
    """A page that shows a session from its first turn on."""

    def __init__(self, session: str, client: Client, known: Known, book: Book) -> None:
        self._session, self._client, self._known, self._book = session, client, known, book
        self._readings: dict[str, Reading] = {}
        self._place = "0"

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *exception: object) -> None:
        try:
            if exception[0] is None and not self._book.broken:
                await self._caught_up()
        finally:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._known.watched |= {turn: reading for turn, reading in self._readings.items() if reading.status}

    async def _caught_up(self) -> None:
        """Until it has seen the end of each turn whose own client has."""

        def missing() -> list[str]:
            ended = {turn for turn, reading in self._readings.items() if reading.status}
            return [turn for turn in turns if turn not in ended]

        async def ended() -> bool:
            if self._following.done():
                self._following.result()
            return not missing()

        own = self._known.readings
        turns = [turn for turn in own if own[turn].status and turn.startswith(f"{self._session}.")]
        try:
            await wait_until(ended, BEHIND)
        except TimeoutError:
            self._book.violation("session stream without an end", f"{missing()} at {self._place}")

    async def _follow(self) -> None:
        path = f"/v1/sessions/{self._session}/events"
        while True:
            with suppress(*BROKEN):
                async with self._client.request("GET", path, None, {"Last-Event-ID": self._place}) as answer:
                    # No session before its first turn.
                    if answer.status == 200:
                        await self._read(answer)
                    elif answer.status not in (404, 503):
                        self._book.violation("stream refused", f"{path} at {self._place}: {answer.status}")
            await asyncio.sleep(PAUSE)

    async def _read(self, answer: Answer) -> None:
        frames = answer.frames()
        try:
            for _ in range(HOP):
                frame = await asyncio.wait_for(anext(frames), SILENCE)
                turn_id = frame.data["turn_id"]
                reading = self._readings.setdefault(turn_id, Reading(turn_id, None, self._book))
                reading.take(frame.data["seq"], frame.event, frame.data)
                self._place = frame.place
                self._book.seen["events read on session streams"] += 1
        except StopAsyncIteration:
            return
        except (AssertionError, ValueError) as error:
            if not isinstance(error, AssertionError):
                return  # cut within a frame
            self._book.violation("frame split or malformed", f"{self._session}: {error}")
        finally:
            answer.writer.transport.abort()
