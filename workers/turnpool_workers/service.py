"""What a worker does on its loop: serve wake-ups, and drain in the end."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from structlog.contextvars import bind_contextvars

from turnpool.agent import Agent, can_continue
from turnpool.logs import get_logger
from turnpool.metrics import FAILED, labelled, watch
from turnpool.models import Claim, Outcome, WorkerInfo
from turnpool.redis.connections import connect
from turnpool.settings import Settings
from turnpool.states import Status
from turnpool.store.membership import Membership
from turnpool.store.store import Store
from turnpool.store.wakeups import WakeUps
from turnpool.tracing import turn_span
from turnpool_workers import metrics
from turnpool_workers.attempt.run import HANDED_BACK, Runner, Stop
from turnpool_workers.attempt.writer import Writer
from turnpool_workers.health import Health
from turnpool_workers.keeper import Keeper, Watch
from turnpool_workers.threads import ATTEMPT, Threads
from turnpool_workers.watchdog import Watchdog

log = get_logger(__name__)

# Seconds to hand back what did not fit in the grace time. Redis may be away; other workers then take the
# turns when their leases run out.
HAND_BACK_SECONDS = 7.0


class WorkerService:
    """Serves wake-ups for the pool (`turnpool_workers.celery.pool.Service`)."""

    def __init__(self, settings: Settings, agents: Mapping[str, Agent], worker_id: str) -> None:
        self._settings = settings
        self._agents = agents
        self._id = worker_id
        self._running: dict[str, Runner] = {}
        self._draining = False
        # Wake-ups under way: a claim that is on its way may bring a turn.
        self._serving: set[asyncio.Task[Any]] = set()
        self._handing_back = False
        # Claims of parked turns, which no wake-up counts.
        self._unasked: set[asyncio.Task[Any]] = set()
        self.health = Health(settings.lease_seconds, settings.hang_seconds)
        self._watchdog = Watchdog(self.health, lambda: list(self._running.values()))
        self._threads = Threads(settings.threads or settings.concurrency)
        watch = Watch(self.health, self._watchdog)
        self._keeper = Keeper(settings, self._state, self._stop_soon, self._claim_parked_soon, watch)

    async def start(self) -> None:
        """Connect, begin to write events and to keep leases."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(self._threads)
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
        metrics.MAX_THREADS.set(self._threads.limit)
        metrics.THREADS.set_function(lambda: self._threads.busy)
        metrics.ABANDONED.set_function(lambda: self._threads.abandoned)
        self.health.start(self._loop)
        self._keeper.start()

    async def serve(self, queue: str, parked: str = "") -> str:
        """Serve one wake-up: claim the best ready turn of the queue and run it.

        `parked`: the partition from which a parked turn is wanted instead.
        """
        if self._draining:
            self._wakeups.publish([queue])
            return "draining"
        task = asyncio.current_task()
        assert task  # noqa: S101 - a coroutine runs in one
        self._serving.add(task)
        try:
            return await self._serve(queue, parked)
        except asyncio.CancelledError:
            return "given up"
        finally:
            self._serving.discard(task)
            if not self._serving:
                self._idle.set()

    async def _serve(self, queue: str, parked: str) -> str:
        claim, woken = await self._store.claim(
            queue, self._id, self._continuing(), self._agents, parked=parked
        )
        self._wakeups.publish(woken)
        if claim is None:
            labelled(metrics.EMPTY, queue).inc()
            return "nothing ready"
        return f"{claim.turn.id} {await self._run(claim)}"

    def _continuing(self) -> list[str]:
        return [name for name, agent in self._agents.items() if can_continue(agent)]

    async def _run(self, claim: Claim) -> str:
        turn = claim.turn
        runner = Runner(
            claim, self._agents[turn.agent], self._store, self._writer, self._settings.provider_retries
        )
        started = time.monotonic()
        # A turn that was taken from this very worker may come back to it while its old runner ends.
        if lost := self._running.get(turn.scoped_id):
            lost.stop(Stop.LOST)
        self._running[turn.scoped_id] = runner
        metrics.RUNNING.inc()
        if claim.restart:
            labelled(metrics.RESTARTS, turn.queue, claim.restart).inc()
        else:
            labelled(metrics.QUEUE_WAIT, turn.queue).observe(claim.age_seconds)
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
            ATTEMPT.set(runner)
            with turn_span(claim.traceparent, agent=turn.agent, **names) as span:
                result, woken = await runner.run()
                span.set_attribute("turnpool.result", result)
        finally:
            if self._running.get(turn.scoped_id) is runner:
                del self._running[turn.scoped_id]
            self._threads.abandon(runner)
            metrics.RUNNING.dec()
        _measure(claim, result, runner.outcome, time.monotonic() - started)
        self._wakeups.publish(woken)
        log.info("attempt_ended", **names, result=result)
        return result

    def begin_drain(self) -> None:
        """Take no more turns. Called from any thread, and from signal handlers."""
        if not self._draining:
            self._draining = self.health.draining = True
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
        # Not asyncio's threads: agents may hold them all.
        closed = asyncio.Event()
        close = partial(self._close_keeper, partial(self._loop.call_soon_threadsafe, closed.set))
        threading.Thread(target=close, name="turnpool-close").start()
        await closed.wait()
        await self._wakeups.close()
        await self._store.close()
        log.info("drained")

    def _close_keeper(self, done: Callable[[], object]) -> None:
        self._keeper.close()
        done()

    async def _give_up(self) -> None:
        """What could not be handed back is left to the workers that find its lease run out."""
        if not self._serving:
            return
        log.error("drain_timed_out", turns=list(self._running), wakeups=len(self._serving))
        for task in self._serving:
            task.cancel()
        await asyncio.wait(self._serving)

    def hurry(self) -> None:
        """Wait no longer. Called from any thread."""
        self._loop.call_soon_threadsafe(self._hurry.set)

    def occupied(self) -> int:
        """Slots that no wake-up may use now. Called from any thread."""
        if self.health.hung:
            return self._settings.concurrency
        return len(self._unasked) + self._threads.abandoned

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
        settings, hung = self._settings, self.health.hung
        info = WorkerInfo(
            self._id,
            settings.queue_names,
            0 if hung else settings.concurrency,
            len(runners),
            self._draining,
            tuple(self._agents),
            hung,
        )
        held = [runner.record for runner in runners if not self._watchdog.withholds(runner)]
        return info, [(turn.scoped_id, turn.attempt) for turn in held]

    def _claim_parked_soon(self, queue: str, prefixes: tuple[str, ...]) -> None:
        if not self.health.hung:
            self._loop.call_soon_threadsafe(self._claim_parked, queue, prefixes)

    def _claim_parked(self, queue: str, prefixes: tuple[str, ...]) -> None:
        """Claim parked turns as far as slots are free: no wake-up is published for them."""
        free = self._settings.concurrency - len(self._serving) - self._threads.abandoned
        # Those of the last look may be on their way.
        for prefix in prefixes[: max(free - len(self._unasked), 0)]:
            if self._draining:
                return
            task = self._loop.create_task(self.serve(queue, prefix))
            self._unasked.add(task)
            task.add_done_callback(self._unasked.discard)

    def _stop_soon(self, stop: dict[str, str]) -> None:
        self._loop.call_soon_threadsafe(self._stop_turns, stop)

    def _stop_turns(self, stop: dict[str, str]) -> None:
        for runner in list(self._running.values()):
            if why := stop.get(f"{runner.record.scoped_id}/{runner.record.attempt}"):
                runner.stop(Stop(why))


def _measure(claim: Claim, result: str, outcome: Outcome | None, seconds: float) -> None:
    """Count an attempt that ended, and with it the turn if it settled one (`outcome`)."""
    queue = claim.turn.queue
    labelled(metrics.ATTEMPTS, queue, result).inc()
    labelled(metrics.ATTEMPT_TIME, queue).observe(seconds)
    if result == HANDED_BACK:
        labelled(metrics.HAND_BACKS, queue).inc()
    if outcome is None:
        return
    labelled(metrics.TURN_TIME, queue, outcome.status).observe(claim.age_seconds + seconds)
    for name, count in (outcome.usage or {}).items():
        labelled(metrics.TOKENS, queue, name.removesuffix("_tokens")).inc(count)
    if outcome.status is Status.FAILED:
        labelled(FAILED, queue, outcome.error[0]).inc()
