"""CPU and memory of processes by what they do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psutil

EVERY = 0.25

Roles = Mapping[str, Sequence[int]]
"""Process ids by role: api, worker, …"""


@dataclass
class Usage:
    """By role: CPU seconds, and bytes of memory at its highest over what it was before."""

    cpu: dict[str, float] = field(default_factory=dict)
    rss: dict[str, int] = field(default_factory=dict)


@asynccontextmanager
async def measured(roles: Roles) -> AsyncIterator[Usage]:
    """What the processes use meanwhile."""
    usage = Usage()
    cpu, rss = _cpu(roles), _rss(roles)
    highest = dict(rss)

    async def watch() -> None:
        while True:
            for role, size in _rss(roles).items():
                highest[role] = max(highest[role], size)
            await asyncio.sleep(EVERY)

    watching = asyncio.create_task(watch())
    try:
        yield usage
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    usage.cpu = {role: seconds - cpu[role] for role, seconds in _cpu(roles).items()}
    usage.rss = {role: highest[role] - rss[role] for role in roles}


def _cpu(roles: Roles) -> dict[str, float]:
    times = {role: [psutil.Process(pid).cpu_times() for pid in pids] for role, pids in roles.items()}
    return {role: sum(t.user + t.system for t in found) for role, found in times.items()}


def _rss(roles: Roles) -> dict[str, int]:
    return {role: sum(psutil.Process(pid).memory_info().rss for pid in pids) for role, pids in roles.items()}
