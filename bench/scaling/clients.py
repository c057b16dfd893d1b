"""Clients: each posts a turn, reads its stream to the end and notes what it saw."""

import asyncio
import math
import time
from dataclasses import dataclass

from bench.scaling.traces import Arrival
from tests.acceptance.sse import Answer, Frame, post_turn, request, text_of, words

# A turn of so many seconds is a token a second, the first at once.
ITL_MS = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client saw of a turn. Times in seconds, `at` from the start of the trace."""

    at: float
    tenant: str
    ended: str
    restarts: int
    wait: float
    ttft: float
    whole: bool


class Clients:
    """Posts turns to one API. `keys`: key by tenant, none if it is open to all."""

    def __init__(self, port: int, keys: dict[str, str]) -> None:
        self._port = port
        self._keys = keys
        self.seen: list[Seen] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def play(self, arrivals: tuple[Arrival, ...], start: float) -> None:
        """Post all at their times, and wait for their ends."""
        for number, arrival in enumerate(arrivals):
            if (pause := start + arrival.at - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            task = asyncio.create_task(self._one(f"s{number}", arrival, start))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _one(self, session: str, arrival: Arrival, start: float) -> None:
        headers = {"Authorization": f"Bearer {self._keys[arrival.tenant]}"} if self._keys else {}
        tokens = round(arrival.seconds) + 1
        params = {"tokens": tokens, "ttft_ms": 0, "itl_ms": ITL_MS}
        posted = time.monotonic()
        frames: list[Frame] = []
        ended = "lost"
        try:
            answer = await post_turn(
                self._port, session, {"input": "hello", "agent": "simulated", "params": params}, **headers
            )
            frames = [frame async for frame in answer.frames()]
            ended = frames[-1].event.removeprefix("turn.") if frames else f"refused {answer.status}"
            if ended not in ("completed", "failed", "cancelled"):
                ended = await self._asked(f"{session}.1", headers)
        except (OSError, ValueError, EOFError) as error:
            ended = f"lost: {error!r}"
        self.seen.append(
            Seen(
                at=posted - start,
                tenant=arrival.tenant,
                ended=ended,
                restarts=sum(frame.event == "turn.restarted" for frame in frames),
                wait=_created(frames, "turn.in_progress") - _created(frames, "turn.queued"),
                ttft=next((f.at for f in frames if f.event == "turn.output_text.delta"), math.nan) - posted,
                whole=text_of(frames) == words(tokens),
            )
        )

    async def _asked(self, turn_id: str, headers: dict[str, str]) -> str:
        """How a turn ended whose stream broke."""
        answer: Answer = await request(self._port, "GET", f"/v1/turns/{turn_id}?wait=60", headers=headers)
        return str((await answer.body())["status"])


def _created(frames: list[Frame], event: str) -> float:
    return next((float(frame.data["created_at"]) for frame in frames if frame.event == event), math.nan)
