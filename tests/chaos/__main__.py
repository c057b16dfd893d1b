"""`python -m tests.chaos --seed N --seconds S [--json FILE]`: status 1 if a promise was broken."""

import argparse
import asyncio
import json
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.report import table
from tests.chaos.run import run


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Chaos for a pool of processes."
    )
    # Not of a secret: a seed is to be written down.
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="random, if left out")  # noqa: S311
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.seconds:g} s", flush=True)  # noqa: T201 - what this command is for
    found = asyncio.run(_run(options.seed, options.seconds))
    print(table(found))  # noqa: T201 - same
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if found["broken"]:
        again = f"python -m tests.chaos --seed {options.seed} --seconds {options.seconds:g}"
        sys.exit(f"Promises were broken. Logs: {found['logs']}. Again: {again}")


async def _run(seed: int, seconds: float) -> dict[str, Any]:
    """An end from outside, too, leaves no process behind; told twice, it still takes its time for that."""
    loop, running = asyncio.get_running_loop(), asyncio.create_task(run(seed, seconds))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _cancel_once(running))
    try:
        return await running
    except asyncio.CancelledError:
        sys.exit("Ended from outside.")


def _cancel_once(task: asyncio.Task[Any]) -> Callable[[], None]:
    told: list[bool] = []

    def cancel() -> None:
        if not told:
            told.append(task.cancel())

    return cancel


if __name__ == "__main__":
    main()
