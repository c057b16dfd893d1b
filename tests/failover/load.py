"""Clients that post turns all the time, and hold each one that was accepted to its promise."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.acceptance.sse import Frame, check_dense, request, text_of, words
from tests.conftest import wait_until

# Turns a second, and tokens of each: at 20 ms a token some ten run at a time.
RATE = 15
TOKENS = 40


class Load:
    """Posts turns. `accepted`: ids of those that got 202, `refused`: posts that were not."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._reading: dict[str, asyncio.Task[list[Frame]]] = {}
        self._posting: set[asyncio.Task[None]] = set()
        self.refused = 0

    @property
    def accepted(self) -> list[str]:
        """Ids of the turns that got 202."""
        return list(self._reading)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Posts come while this is entered; at the end all of them have been accepted."""
        task = asyncio.create_task(self._post_all())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
        if self._posting:
            await asyncio.wait(self._posting, timeout=30)
        assert not self._posting

    async def so_many_more(self, count: int) -> None:
        """Wait until so many more turns have been accepted."""
        goal = len(self._reading) + count

        async def reached() -> bool:
            return len(self._reading) >= goal

        await wait_until(reached, 40)

    async def streams(self) -> list[list[Frame]]:
        """All streams, to their ends."""
        return await asyncio.wait_for(asyncio.gather(*self._reading.values()), 60)

    async def _post_all(self) -> None:
        loop, number = asyncio.get_running_loop(), 0
        started = loop.time()
        while True:
            task = asyncio.create_task(self._post(self._ports[number % len(self._ports)], f"s{number}"))
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)
            number += 1
            await asyncio.sleep(started + number / RATE - loop.time())

    async def _post(self, port: int, session: str) -> None:
        """Post until it is accepted, with the same key, as clients do."""
        body = {"input": "hello", "agent": "simulated", "params": {"tokens": TOKENS}}
        key = {"Idempotency-Key": uuid.uuid4().hex}
        while True:
            answer = await request(port, "POST", f"/v1/sessions/{session}/turns", body, key)
            turn = await answer.body()
            if answer.status == 202:
                break
            assert answer.status == 503, turn
            assert answer.headers["retry-after"]
            self.refused += 1
            await asyncio.sleep(0.2)
        self._reading[turn["id"]] = asyncio.create_task(self._read(port, turn["id"]))

    async def _read(self, port: int, turn_id: str) -> list[Frame]:
        """The stream on one connection, which stays open whatever happens to Redis."""
        while True:
            answer = await request(port, "GET", f"/v1/turns/{turn_id}/events")
            if answer.status == 200:
                return [frame async for frame in answer.frames()]
            refusal = await answer.body()
            assert answer.status == 503, refusal
            await asyncio.sleep(0.2)


def check_streams(streams: list[list[Frame]]) -> int:
    """Each has dense ids, ends as completed with the whole text; gives how many were told of a restart."""
    for frames in streams:
        check_dense(frames)
        assert frames[-1].event == "turn.completed", frames[-1].data
        assert text_of(frames) == words(TOKENS)
    return sum(any(frame.event == "turn.restarted" for frame in frames) for frames in streams)
