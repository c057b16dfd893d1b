"""`make bench`: every load on every server, one run after the other, medians and spread.

.venv/bin/python -m bench.speed [--servers …] [--loads …] [--runs N] [--kills N] [--write NAME]
"""

import argparse
import gc
import json
import resource
from functools import partial

import uvloop

from bench.speed.figures import CLIENT, Run, figures
from bench.speed.loads import LOADS, Load, idle
from bench.speed.plots import cost, speed
from bench.speed.report import BENCH, BUSY, About, Runs, disturbed, machine, put, tables
from bench.speed.servers import OTHER_SERVERS, PEER_SERVERS, SERVERS, Server
from bench.speed.submits import SUBMITS, submits
from bench.speed.usage import measured, memory
from bench.takeover import takeovers

# Descriptors: a socket for each stream, on both sides.
FILES = 10_000
RESULTS = BENCH / "results"
TURNS_A_KILL = 100


async def measure(servers: list[str], loads: list[str], runs: int) -> Runs:
    """Every load on every server, so many times; prints each figure as it comes."""
    found: Runs = {load: {server: [] for server in servers} for load in loads}
    for number in range(runs):
        for name in servers:
            # Fresh processes for each run: none inherits another's memory.
            async with (SERVERS | OTHER_SERVERS)[name]() as server:
                # Before anything is measured: connections, caches, imports.
                await idle(server, "warm", turns=10)
                rest = memory(server.pids)
                for place, load in enumerate(loads):
                    if load == SUBMITS and not server.keeps_turns:
                        continue
                    session = f"r{number}-{place}"
                    run = partial(streamed, LOADS[load], rest) if load in LOADS else submits
                    result = await run(server, session)
                    found[load][name].append(result)
                    print(f"{number} {name:12} {load:22} {_short(result)}", flush=True)
    return found


async def streamed(load: Load, rest: dict[str, int], server: Server, name: str) -> Run:
    """The figures of one load. What came is looked at only when all is over."""
    gc.collect()
    gc.disable()
    async with measured(server.pids, rest) as usage:
        streams = await load(server, name)
    gc.enable()
    return figures([stream.told() for stream in streams], usage)


def _short(run: Run) -> str:
    ttft, gap = run["ttft_added_ms"], run.get("gap_ms", {})
    cpu = {role: round(value) for role, value in run.get("cpu_us_per_token", {}).items()}
    return (
        f"TTFT +{ttft['p50']:.0f}/{ttft['p99']:.0f} ms, gap p99 {gap.get('p99', 0):.0f} ms, "
        f"{run.get('tokens_per_s', 0):.0f} tok/s, {run['accepted_per_s']:.0f} accepted/s, "
        f"CPU {cpu} us, errors {run['errors']}{_warning(run)}"
    )


def _warning(run: Run) -> str:
    busy = run.get("cpu_cores", {}).get(CLIENT, 0)
    return f", CLIENT BUSY: {busy:.0%} of a core" if busy > BUSY else ""


def text(found: Runs, about: About, name: str) -> str:
    """The section of bench/RESULTS.md."""
    where = (
        f"{about['machine']}; client, servers and Valkey share it. {about['versions']}. Medians of "
        f"{about['runs']} runs, in brackets the least and the most. The loads, and what each figure is: "
        "[How speed is measured](#how-speed-is-measured)."
    )
    lines = [f"## {name.capitalize()} ({about['date']})", "", where, ""]
    if warning := disturbed(found):
        lines += [warning, ""]
    if "takeover" in about:
        lines += [f"Takeover after `kill -9`, seconds: {json.dumps(about['takeover'])}.", ""]
    if name == "speed":
        lines += ["![Speed](results/speed.svg)", "", "![CPU for each token](results/speed_cost.svg)", ""]
    return "\n".join(lines) + "\n" + tables(found)


def write(found: Runs, about: About, name: str) -> None:
    """JSON and plots in bench/results, the tables in bench/RESULTS.md."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"about": about, "runs": found}, indent=1) + "\n")
    document = BENCH / "RESULTS.md"
    document.write_text(put(document.read_text(), name, text(found, about, name)))
    if name == "speed":
        for suffix, plot in (("", speed), ("_cost", cost)):
            plot(found, about).savefig(RESULTS / f"{name}{suffix}.svg", metadata={"Date": None})


def main() -> None:
    """Measure, print, and write if that is wanted."""
    loads = [*LOADS, SUBMITS]
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description="Speed, side by side.")
    parser.add_argument("--servers", nargs="+", choices=SERVERS | OTHER_SERVERS, default=list(SERVERS))
    parser.add_argument("--loads", nargs="+", choices=loads, default=loads)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kills", type=int, default=0, help="workers killed to measure takeovers")
    parser.add_argument("--write", metavar="NAME", help="to bench/results and this section of RESULTS.md")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if most < 0 else min(FILES, most), most))
    found = uvloop.run(measure(options.servers, options.loads, options.runs))
    about = machine(options.runs, peers=not PEER_SERVERS.keys().isdisjoint(options.servers))
    if options.kills:
        about["takeover"] = uvloop.run(takeovers(options.kills, TURNS_A_KILL))
    print(text(found, about, options.write or "speed"))
    if options.write:
        write(found, about, options.write)


if __name__ == "__main__":
    main()
