"""A plain model of the turn's life, which `test_life.py` compares with the store step by step."""

from dataclasses import dataclass, field

from tests.turnpool.scripts.kit import HELLO
from turnpool.events import TERMINAL, members
from turnpool.ids import scoped
from turnpool.models import NewTurn, OnBusy, Outcome
from turnpool.states import Status
from turnpool.store.store import Held

MAX_ATTEMPTS = 3
# Which tenant a session is of.
TENANTS = {"a": "x", "b": "x", "c": "y", "d": "y"}
HAND_BACK, LOSS = "drained", "worker_lost"
TERMINAL_KINDS = frozenset(map(str, TERMINAL))


@dataclass
class ModelSession:
    """A session from its creation to its deletion.

    `line`: turns that have not ended, the head first; it outlives the session.
    """

    tenant: str
    line: list["ModelTurn"]
    messages: list[str] = field(default_factory=list)


@dataclass(eq=False)
class ModelTurn:
    """A turn. `text`: what its client has read; `kinds`: types of its events; `aside`: it waits for a trial.

    `base`: events before the attempt's own; `said`: most that an attempt has written; `blame`: losses in a
    row without progress.
    """

    id: str
    new: NewTurn
    session: ModelSession
    age: int
    status: Status = Status.QUEUED
    attempt: int = 0
    losses: int = 0
    cancel: bool = False
    text: str = ""
    restart: str = ""
    deleting: bool = False
    deleted: bool = False
    kinds: list[str] = field(default_factory=lambda: ["turn.queued"])
    base: int = 0
    said: int = 0
    blame: int = 0
    aside: bool = False

    @property
    def scoped_id(self) -> str:
        """Its id in the store."""
        return scoped(self.new.tenant, self.id)

    @property
    def ready(self) -> bool:
        """Whether it can be claimed."""
        return self.status is Status.QUEUED and self.session.line[:1] == [self] and not self.aside


@dataclass(eq=False)
class Hold:
    """What a worker has in hand: it may be stale. `seq`: of the last event that it wrote."""

    turn: ModelTurn
    attempt: int
    worker: str
    seq: int

    @property
    def held(self) -> Held:
        """As the store takes it."""
        return Held(self.turn.scoped_id, self.attempt, self.seq)

    @property
    def stale(self) -> bool:
        """Whether the attempt has lost the turn, or ended it."""
        return self.turn.status is not Status.IN_PROGRESS or self.turn.attempt != self.attempt


class Model:
    """All sessions and turns."""

    def __init__(self) -> None:
        self.sessions: dict[str, ModelSession] = {}
        self.lines: dict[str, list[ModelTurn]] = {}
        self.counters: dict[str, int] = {}
        self.turns: dict[str, ModelTurn] = {}

    def refuses(self, new: NewTurn) -> str:
        """The code of the error that a post gets, or ''."""
        line = self.lines.get(new.session_id)
        return "session_busy" if line and new.on_busy is OnBusy.REJECT else ""

    def submit(self, new: NewTurn) -> ModelTurn:
        """Accept a turn."""
        line = self.lines.setdefault(new.session_id, [])
        session = self.sessions.setdefault(new.session_id, ModelSession(new.tenant, line))
        if new.on_busy is OnBusy.INTERRUPT:
            for turn in session.line[:0:-1] + session.line[:1]:
                self.stop(turn)
        n = self.counters[new.session_id] = self.counters.get(new.session_id, 0) + 1
        turn = ModelTurn(f"{new.session_id}.{n}", new, session, age=len(self.turns))
        self.turns[turn.id] = turn
        session.line.append(turn)
        return turn

    def best(self, queue: str, tenant: str) -> ModelTurn:
        """The turn of the tenant that must be claimed before its others."""
        ready = [t for t in self.ready(queue) if t.new.tenant == tenant]
        return min(ready, key=lambda turn: (turn.new.priority, turn.age))

    def ready(self, queue: str) -> list[ModelTurn]:
        """The turns of a queue that can be claimed."""
        return [turn for turn in self.turns.values() if turn.new.queue == queue and turn.ready]

    def claim(self, turn: ModelTurn, worker: str) -> Hold:
        """Give a turn to a worker."""
        turn.attempt += 1
        turn.status = Status.IN_PROGRESS
        if turn.restart:
            turn.kinds.append("turn.restarted")
            turn.text = ""
        turn.kinds.append("turn.in_progress")
        turn.base = len(turn.kinds)
        return Hold(turn, turn.attempt, worker, len(turn.kinds))

    def say(self, turn: ModelTurn, text: str) -> None:
        """The turn streams."""
        turn.kinds.append("turn.output_text.delta")
        turn.text += text

    def end(self, turn: ModelTurn, status: Status, said: str | None) -> None:
        """The turn ends; `said` goes to its session, if that is still there."""
        turn.status = status
        turn.kinds.append(f"turn.{status}")
        if turn in turn.session.line:
            if turn.session.line[0] is turn and said is not None and not turn.deleting:
                turn.session.messages += ["hello", said]
            turn.session.line.remove(turn)
        turn.deleted = turn.deleting

    def lose(self, turn: ModelTurn, *, fails: bool) -> None:
        """The turn's lease has run out. Whether it `fails` depends on what else its workers lost."""
        turn.losses += 1
        said = len(turn.kinds) - turn.base
        turn.blame = 0 if said > 1.25 * turn.said else turn.blame + 1
        turn.said = max(turn.said, said)
        if turn.cancel:
            self.stop_now(turn)
        elif fails:
            assert turn.blame >= MAX_ATTEMPTS
            self.end(turn, Status.FAILED, None)
        else:
            turn.status, turn.restart = Status.QUEUED, LOSS

    def set_aside(self, queue: str, suspects: set[str]) -> None:
        """These turns of the queue wait for a trial, and no others."""
        for turn in self.turns.values():
            if turn.new.queue == queue:
                turn.aside = turn.scoped_id in suspects

    def hand_back(self, turn: ModelTurn) -> None:
        """The turn's worker drains."""
        if turn.cancel:
            self.stop_now(turn)
        else:
            turn.status, turn.restart = Status.QUEUED, HAND_BACK

    def stop(self, turn: ModelTurn) -> None:
        """Cancel a turn: at once if it waits."""
        if turn.status is Status.QUEUED:
            self.stop_now(turn)
        elif turn.status is Status.IN_PROGRESS:
            turn.cancel = True

    def stop_now(self, turn: ModelTurn) -> None:
        """A turn that no worker runs ends as cancelled."""
        self.end(turn, Status.CANCELLED, turn.text or None)

    def delete(self, session_id: str) -> None:
        """Delete a session; a turn that runs is stopped and stays until its end."""
        session = self.sessions.pop(session_id)
        for turn in session.line[:0:-1] + session.line[:1]:
            self.stop(turn)
        for n in range(1, self.counters[session_id] + 1):
            turn = self.turns[f"{session_id}.{n}"]
            turn.deleting = True
            turn.deleted = turn.status is not Status.IN_PROGRESS

    def with_status(self, queue: str, status: Status) -> set[str]:
        """Scoped ids of the turns of a queue in a state."""
        return {t.scoped_id for t in self.turns.values() if t.new.queue == queue and t.status is status}


def new_turn(session: str, queue: str, priority: int) -> NewTurn:
    """A turn of the session's tenant."""
    return NewTurn(session, TENANTS[session], queue, "agent", [HELLO], 600, {}, {}, priority=priority)


def turn_hold(turn: ModelTurn) -> Hold:
    """The hold of whoever runs the turn."""
    return Hold(turn, turn.attempt, "", len(turn.kinds))


def outcome(status: Status, said: str | None) -> Outcome:
    """An end that leaves the input and what was said in the session."""
    messages = () if said is None else (HELLO, {"role": "assistant", "content": said})
    error = ("agent_error", "no") if status is Status.FAILED else ("", "")
    return Outcome(status, members(output=said), said or "", error=error, messages=messages)
