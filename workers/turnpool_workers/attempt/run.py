"""One attempt at a turn: run the agent, stream what it yields, settle."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from enum import StrEnum
from typing import TypeVar
from weakref import ref

from turnpool.agent import (
    Agent,
    Event,
    Finish,
    FinishReason,
    StartOver,
    Steps,
    ToolCall,
    ToolResult,
    Turn,
    Usage,
    can_continue,
)
from turnpool.errors import (
    AgentExitError,
    AgentOutputError,
    EventsLostError,
    LeaseLostError,
    NotDurableError,
    StoreAwayError,
    TransientProviderError,
)
from turnpool.events import Entry, members, restarted
from turnpool.logs import get_logger
from turnpool.metrics import labelled
from turnpool.models import Claim, Outcome
from turnpool.states import Status
from turnpool.store.store import Held, Store
from turnpool_workers import metrics
from turnpool_workers.attempt import outputs
from turnpool_workers.attempt.failures import Failures
from turnpool_workers.attempt.log import TurnLog
from turnpool_workers.attempt.retries import Retries, out_of_time
from turnpool_workers.attempt.writer import Writer
from turnpool_workers.history import answered, as_chat

log = get_logger(__name__)

T = TypeVar("T")

# Seconds an agent gets to clean up after it was cancelled; then the turn goes on without it.
CLEAN_UP_SECONDS = 1.0
# Seconds between tries to settle while Redis is away.
AWAY_PAUSE = 0.1


# What becomes of an attempt that settles nothing.
HANDED_BACK, LEASE_LOST = "handed back", "lease lost"


class Stop(StrEnum):
    """Why an attempt ends before its agent does."""

    CANCELLED = "cancelled"
    LOST = "lost"
    DRAINED = "drained"
    DEADLINE = "deadline"


class Runner:
    """One attempt at one turn. `outcome`: how the turn ended, once this attempt has settled it."""

    def __init__(self, claim: Claim, agent: Agent, store: Store, writer: Writer, retries: int) -> None:
        turn = claim.turn
        self.record = turn
        self._agent = agent
        self._store = store
        self._retries = Retries(retries)
        self._failures = Failures(turn, show_errors=store.settings.show_errors)
        self._remaining = claim.remaining_seconds
        self._age = claim.age_seconds
        self._claim = claim.name
        self._claimed = time.monotonic()
        self.outcome: Outcome | None = None
        self._usage: dict[str, int] | None = None
        self._finish = FinishReason.STOP
        self._said = False
        self._stop: Stop | None = None
        self._task: asyncio.Task[None] | None = None
        # Done once the agent is, or has had its time to clean up.
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Weakly: an attempt that refers to itself stays, with its whole conversation, until it is collected.
        this = ref(self)
        self._log = TurnLog(writer, Held(turn.scoped_id, turn.attempt, turn.seq), lambda: _lose(this))
        self.turn = Turn(
            id=turn.id,
            session_id=turn.session_id,
            agent=turn.agent,
            input=turn.input,
            messages=as_chat(claim.messages, turn.input),
            params=turn.params,
            metadata=turn.metadata,
            attempt=turn.attempt,
            steps=Steps(lambda name, result: _record_step(this, name, result), claim.steps),
            partial=claim.partial,
        )
        self._log.output = claim.partial
        # Whether this try has shown the client anything.
        self._shown = False
        # Events that the end of the attempt writes.
        self._rest: list[Entry] = []
        # Results of steps on their way to Redis.
        self._recording: set[asyncio.Task[bytes]] = set()

    def stop(self, why: Stop) -> None:
        """End the attempt, unless its agent has ended. The first reason counts, but lost is lost."""
        if why is Stop.LOST or (self._stop is None and not (self._task and self._task.done())):
            self._stop = why
        # A second cancel would cut short what the agent does to clean up.
        if self._task and not self.turn.stop.is_set():
            self._cancel(self._task)
        self.turn.stop.set()

    def _cancel(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        asyncio.get_running_loop().call_later(CLEAN_UP_SECONDS, self._go_on)

    def _go_on(self, _: object = None) -> None:
        if not self._over.done():
            self._over.set_result(None)

    async def run(self) -> tuple[str, tuple[str, ...]]:
        """Run to the end: what became of the turn, and the queues to wake."""
        self._task = asyncio.create_task(self._answer(), name=f"agent {self.record.id}")
        self._task.add_done_callback(self._go_on)
        deadline = asyncio.get_running_loop().call_later(self._remaining, self.stop, Stop.DEADLINE)
        if self._stop:
            self._cancel(self._task)
        try:
            await self._over
        finally:
            deadline.cancel()
        if not self._task.done():
            log.error("agent_ignores_cancel", turn=self.record.id, agent=self.record.agent)
        # Whatever still runs of it says nothing more and begins no step; threads can see that it is over.
        self._log.refuse()
        self.turn.stop.set()
        await self._end_steps()
        return await self._end(self._task)

    async def _end_steps(self) -> None:
        """End the steps that the agent left running, and see those recorded that have ended."""
        if left := set(self.turn.steps.tasks):
            for step in left:
                step.cancel()
            await asyncio.wait(left, timeout=CLEAN_UP_SECONDS)
        if self._recording and self._stop is not Stop.LOST:
            await asyncio.wait(set(self._recording))

    async def _answer(self) -> None:
        """Run the agent; again, with back-off, as long as its provider's errors may pass."""
        if not await self._confirmed(claim=self._claim):
            # A server took over that never heard of this claim: another may get the same attempt.
            self.stop(Stop.LOST)
            return
        while True:
            stood = self._log.output
            try:
                await self._consume(self._agent(self.turn))
            except (SystemExit, KeyboardInterrupt) as error:
                # On an event loop these would end the loop, and all turns with it.
                raise AgentExitError(error) from error
            except TransientProviderError as error:
                partial = self._log.output if can_continue(self._agent) else ""
                if len(partial) > len(stood):
                    self._retries.progressed()
                await self._wait(error)
                self._restart(partial)
            else:
                return

    async def _wait(self, error: TransientProviderError) -> None:
        """Wait until the provider is to be asked again. Raises the error if it is not."""
        # Also what an agent makes of its cancellation: it is not run again.
        if self.turn.cancelled:
            raise error
        left = self._left()
        if out_of_time(error, left):
            raise self._failures.asks_too_much(error) from error
        pause = self._retries.pause(error, left)
        if pause is None:
            raise error
        log.warning("provider_retry", turn=self.record.id, seconds=round(pause, 3), error=error.message)
        await asyncio.sleep(pause)

    def _left(self) -> float:
        """Seconds until the deadline."""
        return self._claimed + self._remaining - time.monotonic()

    def _restart(self, partial: str) -> None:
        """Begin another try, from the text that stands."""
        self._usage, self._finish = None, FinishReason.STOP
        if self._shown or partial != self._log.output:
            self._log.event(restarted("retry", len(partial)))
            labelled(metrics.RESTARTS, self.record.queue, "retry").inc()
        self._log.output = self.turn.partial = partial
        self._shown = False

    async def _consume(self, answer: AsyncIterator[str | Event]) -> None:
        said = self._log
        try:
            async for item in answer:
                if said.closed:
                    break
                self._take(item)
                if said.full:
                    await said.room()
        finally:
            if isinstance(answer, AsyncGenerator):
                await answer.aclose()

    def _take(self, item: object) -> None:
        match item:
            case str(text):
                if text:
                    self._text(text)
            case ToolCall() | ToolResult():
                self._log.event(outputs.entry(item))
                self._shown = True
            case StartOver():
                self._restart("")
            case Usage():
                self._usage = outputs.add(self._usage, item)
            case Finish():
                self._finish = outputs.finish_reason(item)
            case _:
                raise AgentOutputError(f"an agent yields str or an Event, not {type(item).__name__}")

    def _text(self, text: str) -> None:
        if not self._said:
            self._said = True
            if self.record.attempt == 1:
                waited = self._age + time.monotonic() - self._claimed
                labelled(metrics.FIRST_TOKEN, self.record.queue).observe(waited)
        self._shown = True
        self._log.text(text)

    async def _end(self, task: asyncio.Task[None]) -> tuple[str, tuple[str, ...]]:
        if self._stop is Stop.LOST:
            return self._lost()
        if self._stop is Stop.DRAINED:
            return await self._hand_back()
        try:
            outcome = self._outcome(task)
        except Exception as error:  # noqa: BLE001 - what the agent gave cannot be written as JSON
            outcome = self._failed(*self._failures.describe(error))
        return await self._settle(outcome)

    def _outcome(self, task: asyncio.Task[None]) -> Outcome:
        if self._stop is Stop.CANCELLED:
            return self._cancelled()
        if self._stop is Stop.DEADLINE:
            return self._failed("deadline_exceeded", "The turn took longer than its deadline allows.")
        if task.cancelled():
            return self._failed("agent_error", "The agent cancelled itself.")
        if error := task.exception():
            return self._failed(*self._failures.describe(error))
        return self._completed()

    async def _hand_back(self) -> tuple[str, tuple[str, ...]]:
        steps = self.turn.steps.take_back()
        try:
            woken = await self._close(lambda held, entries: self._store.hand_back(held, entries, steps))
        except EventsLostError:
            return self._lost()
        return HANDED_BACK, woken

    async def _settle(self, outcome: Outcome) -> tuple[str, tuple[str, ...]]:
        woken: tuple[str, ...] = ()
        settled = False
        try:
            while not settled:
                woken += await self._close(lambda held, entries: self._store.settle(held, entries, outcome))
                # If a server took over that had not heard of it, the turn is still this worker's to settle.
                settled = await self._confirmed(claim=self._claim, status=outcome.status)
        except (LeaseLostError, EventsLostError):
            # Also a turn whose session was deleted before its end was confirmed.
            return self._lost()[0], woken
        self.outcome = outcome
        return outcome.status, woken

    async def _close(self, end: Callable[[Held, list[Entry]], Awaitable[T]]) -> T:
        """End the attempt with its last events. Raises EventsLostError if some are gone for good."""
        self._rest += await self._log.close()
        while True:
            try:
                return await self._insist(lambda: end(self._log.held, self._rest))
            except EventsLostError as error:
                lost = self._log.missing_since(error.seq)
                if lost is None:
                    raise
                self._rest[:0] = lost

    async def _confirmed(self, **fields: str) -> bool:
        """Whether the turn is so, once that is safe; waits for it as long as it takes."""
        return await self._safe(lambda: self._store.confirm(self.record.scoped_id, **fields))

    async def _safe(self, confirm: Callable[[], Awaitable[bool]]) -> bool:
        while True:
            try:
                return await self._insist(confirm)
            except NotDurableError as error:
                log.warning("not_durable", turn=self.record.id, error=error.message)
                await asyncio.sleep(AWAY_PAUSE)

    def _lost(self) -> tuple[str, tuple[str, ...]]:
        log.warning("lease_lost", turn=self.record.id, attempt=self.record.attempt)
        return LEASE_LOST, ()

    def _completed(self) -> Outcome:
        output, reason = self._log.output, self._finish
        fields = members(output=output, usage=self._usage, finish_reason=reason)
        messages = answered(self.record.input, output)
        return Outcome(Status.COMPLETED, fields, output, self._usage, reason, messages=messages)

    def _cancelled(self) -> Outcome:
        output = self._log.output
        partial = {"role": "assistant", "content": output, "status": "incomplete"}
        messages = (*self.record.input, partial) if output else ()
        return Outcome(Status.CANCELLED, members(output=output), output, self._usage, messages=messages)

    def _failed(self, code: str, message: str) -> Outcome:
        error = members(error={"code": code, "message": message})
        return Outcome(Status.FAILED, error, self._log.output, self._usage, error=(code, message))

    async def record_step(self, name: str, result: bytes | None) -> bytes:
        """What is recorded of the step. That goes on when the agent is cancelled: the step has been run."""
        if not result:
            self._refuse_step()
        recording = asyncio.create_task(self._record(name, result))
        self._recording.add(recording)
        recording.add_done_callback(self._recording.discard)
        recorded = await asyncio.shield(recording)
        if not result:
            self._refuse_step()
        return recorded

    def _refuse_step(self) -> None:
        """Let no step begin once the attempt has ended."""
        if self._log.closed:
            raise asyncio.CancelledError

    async def _record(self, name: str, result: bytes | None) -> bytes:
        """Record until it is safe: a server that takes over must not run it again."""
        while True:
            recorded = await self._insist(lambda: self._store.record_step(self._log.held, name, result))
            if result is None and not recorded:
                return recorded
            if await self._safe(lambda: self._store.confirm_step(self.record.scoped_id, name, recorded)):  # noqa: B023 - awaited at once
                return recorded

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until Redis answers: each of these calls may be repeated."""
        while True:
            try:
                return await call()
            except StoreAwayError as error:
                log.warning("redis_away", turn=self.record.id, error=error.reason)
                await asyncio.sleep(AWAY_PAUSE)


def _lose(attempt: "ref[Runner]") -> None:
    if runner := attempt():
        runner.stop(Stop.LOST)


async def _record_step(attempt: "ref[Runner]", name: str, result: bytes | None) -> bytes:
    runner = attempt()
    if runner is None:
        # The attempt is over, and with it all that its agent has left running.
        raise asyncio.CancelledError
    return await runner.record_step(name, result)
