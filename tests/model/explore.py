"""All systems that can be reached, and whether from each the end is reached without further faults."""

from collections import deque
from typing import NamedTuple

from tests.model.data import GONE, Data, State
from tests.model.steps import WrongReplyError, steps
from tests.model.system import IDLE, Kind, Step, System

# Calls made together.
AT_ONCE = 100


class BrokenPromiseError(AssertionError):
    """A promise does not hold; the message tells the way to it."""


class Move(NamedTuple):
    """How a system was first reached."""

    before: System | None
    name: str


class Explorer:
    """Explores breadth first, so that the way to a broken promise is a shortest one."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self.reached: dict[System, Move] = {}
        # Systems that lead to a system by a step that happens by itself.
        self._back: dict[System, list[System]] = {}
        self.steps = 0

    async def run(self, start: System) -> None:
        """Explore everything; raises BrokenPromiseError."""
        level = [start]
        self.reached[level[0]] = Move(None, "start")
        while level:
            planned = [(system, list(steps(system, self._data.state(system.data)))) for system in level]
            await self._call(planned)
            level = []
            for system, possible in planned:
                for step in possible:
                    self._take(system, step, level)
        self._check_ends()

    async def _call(self, planned: list[tuple[System, list[Step]]]) -> None:
        """Make the calls of these steps that were not made yet."""
        wanted = {
            (system.data, step.call_name): step.call
            for system, possible in planned
            for step in possible
            if step.call and not self._data.known(system.data, step.call_name)
        }
        calls = [(number, name, call) for (number, name), call in wanted.items()]
        for start in range(0, len(calls), AT_ONCE):
            await self._data.apply(calls[start : start + AT_ONCE])

    def _take(self, system: System, step: Step, level: list[System]) -> None:
        self.steps += 1
        number, reply = system.data, None
        if known := self._data.known(system.data, step.call_name):
            number, reply = known
        try:
            after = step.then(system, self._data.state(number), reply)._replace(data=number)
        except WrongReplyError as error:
            raise BrokenPromiseError(f"{error}\n{self.way(system)}\n{step.name}") from None
        if step.kind is Kind.PROGRESS and after != system:
            self._back.setdefault(after, []).append(system)
        if after not in self.reached:
            self.reached[after] = Move(system, step.name)
            self._check(after)
            level.append(after)

    def _check(self, system: System) -> None:
        state = self._data.state(system.data)
        found = list(state.broken)
        if sum(turn.losses for turn in state.turns) > system.guilt:
            found.append("a healthy worker lost its turn")
        there = state.turns[system.erased :]
        if len(state.turns) < system.posts or GONE in there:
            found.append("an accepted turn is not there")
        if not all(turn == GONE or turn.deleted for turn in state.turns[: system.erased]):
            found.append("a turn is there that was deleted")
        if found:
            raise BrokenPromiseError("; ".join(found) + "\n" + self.way(system))

    def _check_ends(self) -> None:
        """Whatever happened, without further faults all turns end: from everywhere an end can be reached.

        As no step is put off for ever, what can be reached from everywhere is reached.
        """
        good = {system for system in self.reached if at_rest(system, self._data.state(system.data))}
        waiting = deque(good)
        while waiting:
            for system in self._back.get(waiting.popleft(), ()):
                if system not in good:
                    good.add(system)
                    waiting.append(system)
        for system in self.reached:
            if system not in good:
                raise BrokenPromiseError("turns never end after:\n" + self.way(system))

    def way(self, system: System) -> str:
        """The steps from the start to this system."""
        names = []
        move = self.reached[system]
        while move.before is not None:
            names.append(move.name)
            move = self.reached[move.before]
        return "\n".join(reversed(names))


def at_rest(system: System, state: State) -> bool:
    """Every turn has ended, nobody does anything, and as many wake-ups lie about as turns are ready: none."""
    ended = all(turn.ended for turn in state.turns)
    return ended and not system.wakeups and set(system.workers) == {IDLE}
