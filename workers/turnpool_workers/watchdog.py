"""Ends a worker whose loop stands still, once others have its turns.

An agent that calls `time.sleep(1e6)` stops every turn of its worker. The keeper's thread notices: it
names the turn, hands back the others, lets the lease of the one run out, and ends the process after
TURNPOOL_HANG_SECONDS, or at once if it is to drain.
"""

import asyncio
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

from turnpool.agent import Turn
from turnpool.errors import StoreAwayError
from turnpool.logs import get_logger
from turnpool.store.store import Held, Store
from turnpool.store.wakeups import WakeUps
from turnpool_workers import metrics
from turnpool_workers.attempt.run import Runner
from turnpool_workers.health import Health

log = get_logger(__name__)

# Seconds. Looks are much closer together, unless nothing in the process ran.
LATE_SECONDS = 1.0
# Seconds to hand back the turns. With Redis away their leases run out.
HAND_BACK_SECONDS = 3.0
# Frames of the loop's thread that the log shows, the innermost last.
FRAMES = 6


class Watchdog:
    """Looks at the loop for the keeper. `runners`: the attempts of the worker."""

    def __init__(
        self,
        health: Health,
        runners: Callable[[], Sequence[Runner]],
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._health = health
        self._runners = runners
        self._end = end
        self._withheld: frozenset[Runner] = frozenset()
        self._looked_at = time.monotonic()

    def withholds(self, runner: Runner) -> bool:
        """Whether the attempt's lease is to run out."""
        return runner in self._withheld

    async def look(self, store: Store, wakeups: WakeUps) -> None:
        """Notice that the loop stands still, or runs again; end the process when it is time."""
        health, stalled = self._health, self._health.stalled_seconds
        late, self._looked_at = time.monotonic() - self._looked_at > LATE_SECONDS, time.monotonic()
        if late:
            # The whole process stood still, as on a suspended machine: the loop may beat in a moment.
            return
        if stalled <= health.notice_seconds:
            if health.hung:
                log.warning("loop_runs_again")
                self._withheld, health.hung = frozenset(), False
                metrics.HUNG.set(0)
            return
        if not health.hung:
            await self._notice(stalled, store, wakeups)
        if health.draining or stalled >= health.hang_seconds:
            log.critical("loop_hangs_worker_ends", seconds=round(stalled, 1))
            self._end(1)

    async def _notice(self, stalled: float, store: Store, wakeups: WakeUps) -> None:
        frame = sys._current_frames().get(self._health.thread)  # noqa: SLF001 - documented, for such debuggers
        runners = self._runners()
        culprit = find_culprit(frame, runners)
        # Without a culprit all leases run out: the losses show who it is.
        self._withheld = frozenset([culprit] if culprit else runners)
        self._health.hung = True
        metrics.HUNG.set(1)
        agent = culprit.record.agent if culprit else "unknown"
        metrics.HANGS.labels(agent).inc()
        log.error(
            "loop_hangs",
            turn=culprit.record.id if culprit else None,
            agent=agent,
            seconds=round(stalled, 1),
            turns=len(runners),
            frames=_frames(frame),
        )
        others = [runner for runner in runners if culprit and runner is not culprit]
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await asyncio.gather(*(self._hand_back(runner, store, wakeups) for runner in others))
        except (StoreAwayError, TimeoutError) as error:
            log.warning("redis_away", error=str(error))

    async def _hand_back(self, runner: Runner, store: Store, wakeups: WakeUps) -> None:
        """Give a turn to others, without what it has not written yet."""
        held = Held(runner.record.scoped_id, runner.record.attempt, 0)
        wakeups.publish(await store.hand_back(held, [], runner.turn.steps.take_back()))


def find_culprit(frame: FrameType | None, runners: Sequence[Runner]) -> Runner | None:
    """The attempt whose code is on the stack, found by its turn or itself among the local variables."""
    by_part: dict[int, Runner] = {id(part): runner for runner in runners for part in (runner, runner.turn)}
    while frame:
        for value in frame.f_locals.values():
            if isinstance(value, (Runner, Turn)) and id(value) in by_part:
                return by_part[id(value)]
        frame = frame.f_back
    return None


def _frames(frame: FrameType | None) -> list[str]:
    frames = traceback.extract_stack(frame)[-FRAMES:] if frame else []
    return [f"{entry.filename}:{entry.lineno} {entry.name}" for entry in frames]
