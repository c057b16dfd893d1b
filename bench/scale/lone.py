"""What a process costs that only waits, and a turn of one token.

The loads of speed have turns of a hundred tokens, so they do not tell the turn's part from the tokens'.
"""

import asyncio
import statistics

from bench.scale.costs import ROLES, Lone
from bench.speed.loads import PARAMS, idle
from bench.speed.servers import Server, turnpool
from bench.speed.streams import post
from bench.speed.usage import Roles, measured

# Seconds of waiting, turns at once, rounds of these; the median counts. The system counts CPU in hundredths.
SECONDS, TURNS, ROUNDS = 8.0, 100, 7


async def measure() -> dict[str, Lone]:
    """By role, with an API, a worker and a Valkey."""
    async with turnpool(1, 1) as server:
        await idle(server, "warm", turns=10)
        pids = {role: server.pids[role] for role in ROLES}
        async with measured(pids, dict.fromkeys(pids, 0)) as still:
            await asyncio.sleep(SECONDS)
        rounds = [await _round(server, pids, number) for number in range(ROUNDS)]
        return {
            role: Lone(
                turn=statistics.median(each[role] for each in rounds) / TURNS,
                second=still.cpu[role] / SECONDS,
            )
            for role in ROLES
        }


async def _round(server: Server, pids: Roles, number: int) -> dict[str, float]:
    params = PARAMS | {"tokens": 1}
    async with measured(pids, dict.fromkeys(pids, 0)) as usage:
        await asyncio.gather(
            *(post(server.port(n), f"{number}-{n}", params, server.dialect) for n in range(TURNS))
        )
    return usage.cpu
