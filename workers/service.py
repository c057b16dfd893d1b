"""What a worker does on its loop: serve wake-ups, and drain in the end."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from structlog.contextvars import bind_contextvars

from turnpool.agent import Agent, can_continue
from turnpool.events import members
from turnpool.logs import get_logger
from turnpool.membership import Membership
from turnpool.metrics import FAILED, watch
from turnpool.models import Claim, Outcome, WorkerInfo
from turnpool.redis import connect
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store import Held, Store
from turnpool.tracing import turn_span
from turnpool.wakeups import WakeUps
from workers import metrics
from workers.keeper import Keeper
from workers.runner import HANDED_BACK, Runner, Stop
from workers.writer import Writer

log = get_logger(__name__)

# Seconds to hand back what did not fit in the grace time. Redis may be away; other workers then take the
# turns when their leases run out.
HAND_BACK_SECONDS = 7.0


class WorkerService:
    """Serves wake-ups for the pool (`workers.pool.Service`)."""

    def __init__(self, settings: Settings, agents: Mapping[str, Agent], worker_id: str) -> None:
        self._settings = settings
        self._agents = agents
        self._id = worker_id
        self._running: dict[str, Runner] = {}
        self._draining = False
        # Wake-ups under way: a claim that is on its way may bring a turn.
        self._serving: set[asyncio.Task[Any]] = set()
        self._handing_back = False
        self._keeper = Keeper(settings, self._state, self._stop_soon)

    async def start(self) -> None:
        """Connect, begin to write events and to keep leases."""
        self._loop = asyncio.get_running_loop()
        self._store = Store.connect(self._settings)
        self._wakeups = WakeUps(connect(self._settings.broker), self._settings.namespace)
        self._writer = Writer(self._store, self._settings.flush_ms / 1000)
        self._writing = asyncio.create_task(self._writer.run(), name="writer")
        self._watching = asyncio.create_task(watch(self._store), name="watch")
        self._staying = asyncio.create_task(Membership(self._settings).stay(), name="membership")
        self._idle = asyncio.Event()
        self._hurry = asyncio.Event()
        metrics.start(self._settings.queue_names)
        metrics.SLOTS.set(self._settings.concurrency)
        self._keeper.start()

    async def serve(self, queue: str) -> str:
        """Serve one wake-up: claim the best ready turn of the queue and run it."""
        if self._draining:
            self._wakeups.publish([queue])
            return "draining"
        task = asyncio.current_task()
        assert task  # noqa: S101 - a coroutine runs in one
        self._serving.add(task)
        try:
            return await self._serve(queue)
        except asyncio.CancelledError:
            return "given up"
        finally:
            self._serving.discard(task)
            if not self._serving:
                self._idle.set()

    async def _serve(self, queue: str) -> str:
        claim, woken = await self._store.claim(queue, self._id, self._continuing())
        self._wakeups.publish(woken)
        if claim is None:
            metrics.EMPTY.labels(queue).inc()
            return "nothing ready"
        return f"{claim.turn.id} {await self._run(claim)}"

    def _continuing(self) -> list[str]:
        return [name for name, agent in self._agents.items() if can_continue(agent)]

    async def _run(self, claim: Claim) -> str:
        turn = claim.turn
        agent = self._agents.get(turn.agent)
        if agent is None:
            return await self._refuse(claim)
        runner = Runner(claim, agent, self._store, self._writer, self._settings.provider_retries)
        started = time.monotonic()
        # A turn that was taken from this very worker may come back to it while its old runner ends.
        if lost := self._running.get(turn.scoped_id):
            lost.stop(Stop.LOST)
        self._running[turn.scoped_id] = runner
        metrics.RUNNING.inc()
        if claim.restart:
            metrics.RESTARTS.labels(turn.queue, claim.restart).inc()
        else:
            metrics.QUEUE_WAIT.labels(turn.queue).observe(claim.age_seconds)
        if self._handing_back:
            runner.stop(Stop.DRAINED)
        names: dict[str, str | int] = {
            "turn": turn.id,
            "session": turn.session_id,
            "tenant": turn.tenant,
            "attempt": turn.attempt,
        }
        try:
            # What the agent logs, and the spans it makes, are the turn's. The context is this wake-up's own.
            bind_contextvars(**names)
            with turn_span(claim.traceparent, agent=turn.agent, **names) as span:
                result, woken = await runner.run()
                span.set_attribute("turnpool.result", result)
        finally:
            if self._running.get(turn.scoped_id) is runner:
                del self._running[turn.scoped_id]
            metrics.RUNNING.dec()
        _measure(claim, result, runner.outcome, time.monotonic() - started)
        self._wakeups.publish(woken)
        log.info("attempt_ended", **names, result=result)
        return result

    async def _refuse(self, claim: Claim) -> str:
        """Fail a turn whose agent this worker does not have: a difference between API and worker settings."""
        turn = claim.turn
        message = f"The worker has no agent {turn.agent!r}; TURNPOOL_AGENTS differs between API and worker."
        error = {"code": "unknown_agent", "message": message}
        outcome = Outcome(Status.FAILED, members(error=error), error=(error["code"], message))
        self._wakeups.publish(
            await self._store.settle(Held(turn.scoped_id, turn.attempt, turn.seq), [], outcome)
        )
        _measure(claim, outcome.status, outcome, 0.0)
        log.error("unknown_agent", turn=turn.id, agent=turn.agent)
        return "unknown agent"

    def begin_drain(self) -> None:
        """Take no more turns. Called from any thread, and from signal handlers."""
        if not self._draining:
            self._draining = True
            metrics.DRAINING.set(1)
            self._drain_until = time.monotonic() + self._settings.drain_seconds

    async def drain(self) -> None:
        """Let running turns end within the grace time, hand back the rest, close.

        `hurry` ends the grace time, a second time the handing back.
        """
        self.begin_drain()
        log.info("draining", running=len(self._running), seconds=self._settings.drain_seconds)
        await self._wait_idle(self._drain_until - time.monotonic())
        self._handing_back = True
        self._hurry.clear()
        for runner in list(self._running.values()):
            runner.stop(Stop.DRAINED)
        await self._wait_idle(HAND_BACK_SECONDS)
        await self._give_up()
        self._writing.cancel()
        self._watching.cancel()
        self._staying.cancel()
        await asyncio.to_thread(self._keeper.close)
        await self._wakeups.close()
        await self._store.close()
        log.info("drained")

    async def _give_up(self) -> None:
        """What could not be handed back is left to the workers that find its lease run out."""
        if not self._serving:
            return
        log.error("drain_gave_up", turns=list(self._running), wakeups=len(self._serving))
        for task in self._serving:
            task.cancel()
        await asyncio.wait(self._serving)

    def hurry(self) -> None:
        """Wait no longer. Called from any thread."""
        self._loop.call_soon_threadsafe(self._hurry.set)

    def info(self) -> dict[str, Any]:
        """For Flower's pool page."""
        return {
            "slots": self._settings.concurrency,
            "running": len(self._running),
            "draining": self._draining,
        }

    async def _wait_idle(self, seconds: float) -> None:
        """Until no turn runs or comes, the time is up, or there is no more time (`hurry`)."""
        if not self._serving or seconds <= 0:
            return
        self._idle.clear()
        waits = {asyncio.ensure_future(event.wait()) for event in (self._idle, self._hurry)}
        _, pending = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in pending:
            wait.cancel()

    def _state(self) -> tuple[WorkerInfo, list[tuple[str, int]]]:
        # list() of a dict is one step for other threads.
        runners = list(self._running.values())
        settings = self._settings
        info = WorkerInfo(self._id, settings.queue_names, settings.concurrency, len(runners), self._draining)
        return info, [(runner.record.scoped_id, runner.record.attempt) for runner in runners]

    def _stop_soon(self, stop: dict[str, str]) -> None:
        self._loop.call_soon_threadsafe(self._stop_turns, stop)

    def _stop_turns(self, stop: dict[str, str]) -> None:
        for runner in list(self._running.values()):
            if why := stop.get(f"{runner.record.scoped_id}/{runner.record.attempt}"):
                runner.stop(Stop(why))


def _measure(claim: Claim, result: str, outcome: Outcome | None, seconds: float) -> None:
    """Count an attempt that ended, and with it the turn if it settled one (`outcome`)."""
    queue = claim.turn.queue
    metrics.ATTEMPTS.labels(queue, result).inc()
    metrics.ATTEMPT_TIME.labels(queue).observe(seconds)
    if result == HANDED_BACK:
        metrics.HAND_BACKS.labels(queue).inc()
    if outcome is None:
        return
    metrics.TURN_TIME.labels(queue, outcome.status).observe(claim.age_seconds + seconds)
    for name, count in (outcome.usage or {}).items():
        metrics.TOKENS.labels(queue, name.removesuffix("_tokens")).inc(count)
    if outcome.status is Status.FAILED:
        FAILED.labels(queue, outcome.error[0]).inc()
