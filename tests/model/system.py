"""What is outside Redis: workers, the API, the list of wake-ups. Their steps, and the faults between them."""

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from tests.model.data import Call, State

WORKERS = 2


class Worker(NamedTuple):
    """A worker: the attempt it runs, the last event it has written, how much it said, whether it is to stop.

    `step`: the result of the step of its turn, once it has one.
    `repeats`: it has not heard whether its last write was carried out. Without a turn it is idle.
    """

    turn: str = ""
    attempt: int = 0
    seq: int = 0
    said: int = 0
    repeats: bool = False
    stops: bool = False
    step: str = ""


IDLE = Worker()


class System(NamedTuple):
    """All there is. `data`: the state of Redis; `wakeups`: how many lie in the broker's list.

    What is to be published is in the list at once, and what is taken from it claims at once: that it
    takes time is the same as lying longer in the list, and who dies meanwhile has lost a wake-up.
    `posts` that were answered, of those `wanted`; `cancels`, `drains` (turns handed back), `deadlines` (that
    pass), `deletes` (of the session) and `faults`: how many may still come; `interrupts`: whether the last
    post does; `records`: whether turns have a step; `erased`: how many turns there were at the last delete;
    `guilt`: times so far that a worker lost a turn by a fault of its own.
    """

    data: int
    wakeups: int = 0
    workers: tuple[Worker, ...] = (IDLE,) * WORKERS
    posts: int = 0
    wanted: int = 2
    cancels: int = 0
    drains: int = 0
    deadlines: int = 0
    deletes: int = 0
    faults: int = 0
    interrupts: bool = False
    records: bool = False
    erased: int = 0
    guilt: int = 0

    def with_worker(self, old: Worker, new: Worker) -> "System":
        """One worker does something else. Workers are alike, so their order says nothing."""
        workers = list(self.workers)
        workers[workers.index(old)] = new
        return self._replace(workers=tuple(sorted(workers)))

    def holder(self, turn: str, attempt: int) -> Worker | None:
        """The worker that runs this attempt."""
        for worker in self.workers:
            if (worker.turn, worker.attempt) == (turn, attempt):
                return worker
        return None


class Kind(Enum):
    """`PROGRESS` happens by itself; a `CHOICE` is a client's, or of who deploys; a `FAULT` should not be."""

    PROGRESS = 0
    CHOICE = 1
    FAULT = 2


Then = Callable[[System, State, Any], System]


class Step(NamedTuple):
    """What may happen next: a call (named, so that it is made once), and what it leads to."""

    name: str
    kind: Kind
    then: Then
    call: Call | None = None
    call_name: str = ""


def faulty(name: str, then: Then, of: Step | None = None, guilt: int = 0) -> Step:
    """A fault, also one in which a step's call is carried out."""

    def after(system: System, state: State, reply: Any) -> System:
        result = then(system, state, reply)
        return result._replace(faults=system.faults - 1, guilt=system.guilt + guilt)

    return Step(name, Kind.FAULT, after, of.call if of else None, of.call_name if of else "")
