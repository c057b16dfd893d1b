"""Plots of the figures, by sessions at once and by server."""

import re
import statistics
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.speed.figures import CLIENT, Run
from bench.speed.report import About, Runs

# The same bytes from the same figures: no date of drawing, and names of parts that are not random.
mpl.rcParams["svg.hashsalt"] = "turnpool"
mpl.rcParams["svg.fonttype"] = "none"

AT_ONCE = re.compile(r"(\d+) at once$")
PANELS: dict[str, Callable[[Run], float]] = {
    "tokens/s": lambda run: run["tokens_per_s"],
    "TTFT added, p50, ms": lambda run: run["ttft_added_ms"]["p50"],
    "TTFT added, p99, ms": lambda run: run["ttft_added_ms"]["p99"],
    "token gap, p99, ms": lambda run: run["gap_ms"]["p99"],
}


def speed(found: Runs, about: About) -> Figure:
    """Lines over sessions at once: medians, with the least and the most."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    for axes, (name, value) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for server, points in lines(found, value).items():
            low, middle, high = zip(*(spread for _, spread in points), strict=True)
            errors = [
                [m - lo for m, lo in zip(middle, low, strict=True)],
                [hi - m for m, hi in zip(middle, high, strict=True)],
            ]
            axes.errorbar(
                [x for x, _ in points], middle, yerr=errors, marker="o", markersize=3, capsize=3, label=server
            )
        axes.set(xscale="log", yscale="log", xlabel="sessions at once", title=name)
        axes.grid(alpha=0.3)
        axes.legend()
    return _signed(figure, about)


def cost(found: Runs, about: About) -> Figure:
    """CPU for each token by process, as stacked bars."""
    loads = [load for load in found if AT_ONCE.match(load) and _sessions(load) >= 100]  # noqa: PLR2004 - fewer are start-up
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels: Any = figure.subplots(1, len(loads) or 1, sharey=True, squeeze=False)[0]
    for axes, load in zip(panels, loads, strict=False):
        for place, runs in enumerate(found[load].values()):
            bottom = 0.0
            for role in (role for role in (runs[0]["cpu_us_per_token"] if runs else ()) if role != CLIENT):
                height = statistics.median(run["cpu_us_per_token"][role] for run in runs)
                axes.bar(place, height, bottom=bottom, color=COLORS[role])
                axes.annotate(role, (place, bottom + height / 2), ha="center", va="center", fontsize=7)
                bottom += height
            axes.set_xticks(range(len(found[load])), list(found[load]), rotation=20, fontsize=8)
        axes.set_title(load)
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel("CPU, microseconds a token")
    return _signed(figure, about)


COLORS = {"server": "tab:gray", "api": "tab:blue", "worker": "tab:orange", "valkey": "tab:green"}
Point = tuple[int, tuple[float, float, float]]


def lines(found: Runs, value: Callable[[Run], float]) -> dict[str, list[Point]]:
    """By server: sessions at once, and least, median and most of the runs."""
    points: dict[str, list[Point]] = {}
    for load, servers in found.items():
        for server, runs in servers.items():
            if AT_ONCE.match(load) and runs:
                values = [value(run) for run in runs]
                spread = (min(values), statistics.median(values), max(values))
                points.setdefault(server, []).append((_sessions(load), spread))
    return points


def _sessions(load: str) -> int:
    return int(load.split(maxsplit=1)[0])


def _signed(figure: Figure, about: About) -> Figure:
    title = f"{about['date']}, {about['machine']}; medians of {about['runs']} runs"
    figure.suptitle(f"{title}\n{about['versions']}", fontsize=8)
    return figure
