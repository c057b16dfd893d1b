"""`make bench`: every load on every server, one run after the other, medians and spread.

.venv/bin/python -m bench.speed [--servers …] [--loads …] [--runs N] [--write]
"""

import argparse
import json
import resource
from pathlib import Path
from typing import Any

import uvloop

from bench.speed.loads import LOADS, run
from bench.speed.report import Runs, machine, table
from bench.speed.servers import SERVERS

# Descriptors: a socket for each stream, on both sides.
FILES = 10_000
# Before anything is measured: connections, caches, imports.
WARM_UP = "100 at once"
RESULTS = Path(__file__).parent.parent / "results"


async def measure(servers: list[str], loads: list[str], runs: int) -> Runs:
    """Every load on every server, so many times; prints each figure as it comes."""
    found: Runs = {load: {server: [] for server in servers} for load in loads}
    for number in range(runs):
        for name in servers:
            # Fresh processes for each run: none inherits another's memory.
            async with SERVERS[name]() as server:
                await LOADS[WARM_UP](server.ports, "warm")
                for place, load in enumerate(loads):
                    result = await run(LOADS[load], server, f"r{number}-{place}")
                    found[load][name].append(result)
                    print(f"{number} {name:12} {load:22} {_short(result)}", flush=True)
    return found


def _short(result: dict[str, Any]) -> str:
    ttft, gap = result["ttft_ms"], result["gap_ms"]
    cpu = {role: round(value) for role, value in result["cpu_us_per_token"].items()}
    return (
        f"TTFT {ttft['p50']:.0f}/{ttft['p99']:.0f} ms, gap {gap['p50']:.0f}/{gap['p99']:.0f} ms, "
        f"{result['tokens_per_s']:.0f} tok/s, {result['accepted_per_s']:.0f} accepted/s, "
        f"CPU {cpu} us, errors {result['errors']}"
    )


def main() -> None:
    """Measure, print, and write if that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description="Speed, side by side.")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"to {RESULTS.name}/speed.json and speed.md")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if most < 0 else min(FILES, most), most))
    found = uvloop.run(measure(options.servers, options.loads, options.runs))
    about = machine(options.runs)
    print(table(found, about))
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "speed.json").write_text(json.dumps({"about": about, "runs": found}, indent=1) + "\n")
        (RESULTS / "speed.md").write_text(table(found, about) + "\n")


if __name__ == "__main__":
    main()
