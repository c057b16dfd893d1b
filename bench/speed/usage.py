"""CPU and memory of processes by what they do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import psutil

from bench.speed.figures import Usage

EVERY = 0.25

Roles = Mapping[str, Sequence[int]]
"""Process ids by role: api, worker, …"""


@asynccontextmanager
async def measured(roles: Roles, rest: Mapping[str, int]) -> AsyncIterator[Usage]:
    """What the processes use meanwhile; `rest`: their memory before any load."""
    usage = Usage()
    cpu, busy, highest = _cpu(roles), _busy(), memory(roles)

    async def watch() -> None:
        while True:
            await asyncio.sleep(EVERY)
            for role, size in memory(roles).items():
                highest[role] = max(highest[role], size)

    watching = asyncio.create_task(watch())
    try:
        yield usage
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    usage.cpu = {role: seconds - cpu[role] for role, seconds in _cpu(roles).items()}
    usage.others = _busy() - busy - sum(usage.cpu.values())
    usage.rss = {role: highest[role] - rest[role] for role in roles}


def memory(roles: Roles) -> dict[str, int]:
    """Bytes of memory by role."""
    return {role: sum(psutil.Process(pid).memory_info().rss for pid in pids) for role, pids in roles.items()}


def _cpu(roles: Roles) -> dict[str, float]:
    times = {role: [psutil.Process(pid).cpu_times() for pid in pids] for role, pids in roles.items()}
    return {role: sum(t.user + t.system for t in found) for role, found in times.items()}


def _busy() -> float:
    """CPU seconds of all that the machine did."""
    times = psutil.cpu_times()
    return float(times.user + times.system)
