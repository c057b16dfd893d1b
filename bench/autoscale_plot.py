"""A plot of a run of bench/autoscale.py: what waits and runs, workers, time to first token.

    python -m bench.autoscale_plot run.json plot.svg

Needs matplotlib (requirements/bench.in), which nothing else here does.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.scaling.report import percentiles

# The same bytes from the same run: no date, and names of parts that are not random.
mpl.rcParams["svg.hashsalt"] = "turnpool"
mpl.rcParams["svg.fonttype"] = "none"

# Every so many samples, four of which are a second: a plot is no wider.
EVERY = 4
PIECE_SECONDS = 2


def plot(run: dict[str, Any]) -> Figure:
    """Three panels over one time axis."""
    samples, turns = run["samples"][::EVERY], [turn for turn in run["turns"] if turn["ended"] == "completed"]
    at = [sample["at"] for sample in samples]
    slots = run["slots"]
    figure = Figure(figsize=(9, 8), layout="constrained")
    load, workers, ttft = figure.subplots(3, 1, sharex=True)
    load.plot(at, [sample["queued"] for sample in samples], label="queue depth", color="tab:red")
    load.plot(at, [sample["running"] for sample in samples], label="running turns", color="tab:blue")
    load.set_ylabel("turns")
    ready = [sample["ready"] for sample in samples]
    needed = [-(-(sample["queued"] + sample["running"]) // slots) for sample in samples]
    workers.step(
        at, [sample["desired"] for sample in samples], where="post", label="wanted", color="tab:gray"
    )
    workers.step(at, ready, where="post", label="ready", color="tab:green")
    draining = [sample["ready"] + sample["draining"] for sample in samples]
    workers.fill_between(at, ready, draining, step="post", alpha=0.3, label="draining", color="tab:orange")
    workers.step(at, needed, where="post", label=f"turns / {slots}", color="black", linewidth=0.7)
    workers.set_ylabel("workers")
    times, shares = by_time(turns)
    for share, color in (("p95", "tab:purple"), ("p50", "tab:pink")):
        ttft.plot(times, [found[share] for found in shares], label=share, color=color)
    ttft.set_ylabel("time to first token, s")
    ttft.set_xlabel("seconds")
    for axes in (load, workers, ttft):
        axes.legend(loc="upper right")
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=0)
    result = run["result"]
    figure.suptitle(
        f"{run['trace']}: {result['turns']} turns, {result['lost']} lost, {result['restarted']} restarted, "
        f"queue wait p95 {result['wait_seconds']['p95']} s, worker-seconds {result['ratio']} x the least"
    )
    return figure


def by_time(turns: list[dict[str, Any]]) -> tuple[list[float], list[dict[str, float]]]:
    """Times to first token of the turns posted in each piece of time."""
    pieces: dict[float, list[float]] = {}
    for turn in turns:
        pieces.setdefault(turn["at"] // PIECE_SECONDS * PIECE_SECONDS, []).append(turn["ttft"])
    return list(pieces), [percentiles(piece) for piece in pieces.values()]


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    plot(json.loads(source.read_text())).savefig(target, metadata={"Date": None})
