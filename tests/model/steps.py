"""What may happen next in a system."""

from collections.abc import Iterator
from typing import Any

from tests.model import calls
from tests.model.contents import TURNS
from tests.model.data import GONE, State
from tests.model.system import IDLE, Kind, Step, System, Then, Worker, faulty
from turnpool.models import OnBusy


class WrongReplyError(AssertionError):
    """A call told something that is not so."""


def steps(system: System, state: State) -> Iterator[Step]:
    """Every step that is possible now; those that would change nothing are left out."""
    every = [*_clients(system, state), *_keeper(system, state), *_deadlines(system, state)]
    for worker in dict.fromkeys(system.workers):
        every += _worker(system, state, worker)
    return (step for step in every if step.kind is not Kind.FAULT or system.faults)


# Clients, the API and the list of wake-ups


def _clients(system: System, state: State) -> Iterator[Step]:
    if system.posts < system.wanted:
        number = system.posts + 1
        last = number == system.wanted
        on_busy = OnBusy.INTERRUPT if system.interrupts and last else OnBusy.QUEUE
        name = f"post {number}, {on_busy}"
        post = Step(name, Kind.CHOICE, _accepted(number, on_busy), calls.submit(number, on_busy), name)
        yield post
        yield faulty(f"{name}, answer and wake-up lost", _same, post)
    if system.deletes and len(state.turns) > system.erased:
        yield Step("session is deleted", Kind.CHOICE, _deleted, calls.delete, "delete")
    if system.cancels:
        for turn_id in (name for name in TURNS[: len(state.turns)] if state.turn(name) != GONE):
            name = f"cancel {turn_id}"
            cancel = Step(name, Kind.CHOICE, _cancelled(turn_id), calls.cancel(turn_id), name)
            yield cancel
            yield faulty(f"{name}, answer and wake-up lost", _same, cancel)
    if system.wakeups:
        yield faulty("wake-up lost", lambda system, *_: system._replace(wakeups=system.wakeups - 1))
        yield faulty("wake-up doubled", lambda system, *_: system._replace(wakeups=system.wakeups + 1))


def _same(system: System, _: State, __: Any) -> System:
    return system


def _accepted(number: int, on_busy: OnBusy) -> Then:
    def after(system: System, state: State, reply: Any) -> System:
        place = TURNS.index(reply.turn_id)
        # What was deleted before its answer came is another turn the next time.
        if place + 1 != number and not (system.erased and place >= number):
            raise WrongReplyError(f"post {number} is turn {reply.turn_id}")
        if on_busy is OnBusy.INTERRUPT and not all(turn.cancel or turn.ended for turn in state.turns[:place]):
            raise WrongReplyError(f"post {number} does not interrupt all before it")
        return system._replace(posts=number, wakeups=system.wakeups + len(reply.woken))

    return after


def _deleted(system: System, state: State, _: Any) -> System:
    return system._replace(deletes=system.deletes - 1, erased=len(state.turns))


def _cancelled(turn_id: str) -> Then:
    def after(system: System, state: State, reply: Any) -> System:
        turn = state.turn(turn_id)
        if not (turn.cancel or turn.ended):
            raise WrongReplyError(f"{turn_id} is {reply.state}, but nobody will know")
        return system._replace(cancels=system.cancels - 1, wakeups=system.wakeups + len(reply.woken))

    return after


# Workers


def _worker(system: System, state: State, worker: Worker) -> Iterator[Step]:
    if worker != IDLE:
        yield faulty("worker dies", lambda system, *_: system.with_worker(worker, IDLE), guilt=1)
        yield from _runs(system, state, worker)
    elif system.wakeups:
        claim = Step("worker claims", Kind.PROGRESS, _claimed, calls.claim, "claim")
        yield claim
        yield faulty("worker claims, answer lost", _woken_up, claim, guilt=1)


def _claimed(system: System, state: State, reply: Any) -> System:
    found, woken = reply
    system = _woken_up(system, state, reply)._replace(wakeups=system.wakeups - 1 + woken)
    if not found:
        return system
    turn_id, attempt, seq, step = found
    turn = state.turn(turn_id)
    if turn.late or turn.deleted or turn.step != step:
        raise WrongReplyError(f"{turn_id} is given to a worker with step {step!r}, but is {turn}")
    return system.with_worker(IDLE, Worker(turn_id, attempt, seq, len(turn.text), step=step))


def _woken_up(system: System, _: State, __: Any) -> System:
    return system._replace(wakeups=system.wakeups - 1)


def _runs(system: System, state: State, worker: Worker) -> Iterator[Step]:
    # What the call is made with. A stale attempt is refused whatever it says, so that is tried once.
    told = f"{worker.turn} {worker.attempt} {worker.stops}"
    if _holds(state, worker):
        told += f" {worker.seq} {worker.said}"
    if worker.repeats or not (worker.said or worker.stops):
        append = Step(
            "worker appends", Kind.PROGRESS, _appended(worker), calls.append(worker), f"append {told}"
        )
        unsure = worker._replace(repeats=True)
        yield append
        yield faulty(
            "worker appends, answer lost", lambda system, *_: system.with_worker(worker, unsure), append
        )
    records = system.records and not worker.step
    if records:
        record = Step(
            "worker records", Kind.PROGRESS, _recorded(worker), calls.record(worker), f"record {told}"
        )
        yield record
        yield faulty("worker records, answer lost", _same, record)
    if not worker.repeats and (worker.stops or not records):
        settle = Step("worker settles", Kind.PROGRESS, _ended(worker), calls.settle(worker), f"settle {told}")
        yield settle
        yield faulty("worker settles, answer lost", _same, settle)
    if state.turn(worker.turn).late and not worker.repeats:
        call = calls.give_up(worker)
        yield Step("worker gives up at the deadline", Kind.PROGRESS, _ended(worker), call, f"give up {told}")
    if system.drains and not worker.repeats:
        back = Step(
            "worker hands back", Kind.CHOICE, _drained(worker), calls.hand_back(worker), f"drain {told}"
        )
        yield back
        yield faulty("worker hands back, answer lost", _same, back)
    if _has_news(state, worker):
        yield Step("worker renews", Kind.PROGRESS, _renewed(worker), calls.renew(worker), f"renew {told}")


def _appended(worker: Worker) -> Then:
    written = worker._replace(seq=worker.seq + 1, said=worker.said + 1, repeats=False)
    return lambda system, _, holds: system.with_worker(worker, written if holds else IDLE)


def _recorded(worker: Worker) -> Then:
    def after(system: System, state: State, step: str | None) -> System:
        told = step if step is calls.LOST else state.turn(worker.turn).step
        if step != told or (step is calls.LOST) == _holds(state, worker):
            raise WrongReplyError(f"{worker} is told {step!r} of its step")
        return system.with_worker(worker, worker._replace(step=step) if step else IDLE)

    return after


def _ended(worker: Worker) -> Then:
    def after(system: System, state: State, woken: int | None) -> System:
        turn = state.turn(worker.turn)
        if woken is calls.LOST and (turn.status, turn.attempt) == ("completed", worker.attempt):
            raise WrongReplyError(f"{worker.turn} is said to be lost by the attempt that ended it")
        return system.with_worker(worker, IDLE)._replace(wakeups=system.wakeups + (woken or 0))

    return after


def _drained(worker: Worker) -> Then:
    def after(system: System, state: State, woken: Any) -> System:
        return _ended(worker)(system, state, woken)._replace(drains=system.drains - 1)

    return after


def _has_news(state: State, worker: Worker) -> bool:
    """Whether a renewal would tell the worker something, or save its lease."""
    turn = state.turn(worker.turn)
    return (
        not _holds(state, worker)
        or (worker.turn, False) in state.leases
        or (turn.cancel and not worker.stops)
    )


def _holds(state: State, worker: Worker) -> bool:
    turn = state.turn(worker.turn)
    return (turn.status, turn.attempt) == ("in_progress", worker.attempt)


def _renewed(worker: Worker) -> Then:
    def after(system: System, _: State, why: Any) -> System:
        new = {"lost": IDLE, "cancelled": worker._replace(stops=True), None: worker}[why]
        return system.with_worker(worker, new)

    return after


# The keeper of any worker, and the clock


def _keeper(system: System, state: State) -> Iterator[Step]:
    stale, grace = state.pulse
    runs_out = {turn_id for turn_id, lives in state.leases if not lives}
    if stale or ((runs_out or state.suspects) and not grace):
        reap = Step("somebody reaps", Kind.PROGRESS, _woken, calls.reap, "reap")
        yield reap
        yield faulty("somebody reaps and dies", _same, reap)
    if system.wakeups != len(state.ready) or state.missing:
        look = f"top up {system.wakeups}"
        yield Step("somebody tops up", Kind.PROGRESS, _woken, calls.top_up(system.wakeups), look)
    for turn_id, lives in state.leases:
        if lives:
            yield _end_of_lease(system, turn_id, state.turn(turn_id).attempt)
    if grace and not any(system.holder(turn_id, state.turn(turn_id).attempt) for turn_id in runs_out):
        yield Step("grace ends", Kind.PROGRESS, _same, calls.end_grace, "end grace")
    if state.leases and not stale:
        yield faulty("Redis restarts", _same, Step("", Kind.FAULT, _same, calls.restart, "restart"))


def _woken(system: System, _: State, woken: Any) -> System:
    return system._replace(wakeups=max(system.wakeups + woken, 0))


def _deadlines(system: System, state: State) -> Iterator[Step]:
    if any(turn.late for turn in state.turns):
        expire = Step("somebody expires", Kind.PROGRESS, _woken, calls.expire, "expire")
        yield expire
        yield faulty("somebody expires and dies", _same, expire)
    if system.deadlines:
        for turn_id in TURNS[: len(state.turns)]:
            if not (state.turn(turn_id).ended or state.turn(turn_id).late):
                name = f"deadline of {turn_id} passes"
                # A choice, since no turn's end may depend on it.
                yield Step(name, Kind.CHOICE, _passed, calls.pass_deadline(turn_id), name)


def _passed(system: System, _: State, __: Any) -> System:
    return system._replace(deadlines=system.deadlines - 1)


def _end_of_lease(system: System, turn_id: str, attempt: int) -> Step:
    step = Step(
        f"lease of {turn_id} ends", Kind.PROGRESS, _same, calls.end_lease(turn_id), f"lease {turn_id}"
    )
    # Only that of a worker which has died ends by itself.
    return (
        faulty(f"worker of {turn_id} stands still", _same, step, guilt=1)
        if system.holder(turn_id, attempt)
        else step
    )
