"""States of Redis: each in a partition of its own, copied before a step, read after it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from tests.model.contents import READ, TURNS, Contents, contents, names
from tests.model.promises import ENDS, LOSSES, broken, text_of
from turnpool import keys
from turnpool.redis.nodes import Node, OneNode
from turnpool.settings import Settings
from turnpool.store.store import Store

SETTINGS = Settings(max_attempts=LOSSES)
# Days: whatever ends in the model ends by a step, however long all of them take.
LEASE_MS = 10**9

Call = Callable[[Store], Awaitable[Any]]

COPY = "for _, key in ipairs(names) do redis.call('COPY', KEYS[1] .. key, KEYS[2] .. key) end"
FORGET = "for _, key in ipairs(names) do redis.call('UNLINK', KEYS[1] .. key) end"


NAMES = f"local names = {{{', '.join(map(repr, names()))}}}\n"


class Turn(NamedTuple):
    """What matters of a turn for what may come. Of one that has ended it is no more where its events end.

    `late`: its deadline has passed; `deleted`: it is to go with its end; `step`: what is recorded.
    `blame`: losses without progress in a row, and what decides whether the next is one.
    """

    status: str
    attempt: int = 0
    losses: int = 0
    cancel: bool = False
    seq: int = 0
    text: str = ""
    late: bool = False
    deleted: bool = False
    step: str = ""
    blame: str = ""

    @property
    def ended(self) -> bool:
        """Whether it has its last event, or was deleted."""
        return self == GONE or self.status in ENDS.values()


GONE = Turn("gone")


class State(NamedTuple):
    """What matters of a state of Redis, and the promises that it breaks. Two that are equal go on alike."""

    turns: tuple[Turn, ...]
    ready: frozenset[str]
    leases: frozenset[tuple[str, bool]]
    suspects: frozenset[str]
    trials: frozenset[str]
    missing: int
    pulse: tuple[bool, bool]
    broken: tuple[str, ...]

    def turn(self, turn_id: str) -> Turn:
        """A turn that is there, or was."""
        return self.turns[TURNS.index(turn_id)]


class Data:
    """Applies calls to states, each call to each state once."""

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis
        self._partitions: dict[State, int] = {}
        self._states: dict[int, State] = {}
        self._known: dict[tuple[int, str], tuple[int, Any]] = {}
        self._next = 0
        self._digests: dict[str, str] = {}
        self._node = Node(redis)

    async def first(self) -> int:
        """The number of the empty state."""
        for script in (COPY, READ, FORGET):
            self._digests[script] = await self.redis.script_load(NAMES + script)
        (read,) = await self._pipeline(READ, [(keys.prefix("turnpool", "0"),)])
        return self._note(_state(contents(read)), 0)

    def state(self, number: int) -> State:
        """The state of this number."""
        return self._states[number]

    @property
    def calls(self) -> int:
        """How many calls were made."""
        return len(self._known)

    def known(self, number: int, name: str) -> tuple[int, Any] | None:
        """The state after a call that was made before, and what it gave."""
        return self._known.get((number, name))

    async def apply(self, wanted: Sequence[tuple[int, str, Call]]) -> None:
        """Make calls, each named for what it is and with what arguments, on copies of the states.

        All in three round trips, or a few more where a call takes several.
        """
        places = range(self._next + 1, self._next + 1 + len(wanted))
        self._next += len(wanted)
        pairs = [
            (keys.prefix("turnpool", str(number)), keys.prefix("turnpool", str(place)))
            for (number, *_), place in zip(wanted, places, strict=True)
        ]
        await self._pipeline(COPY, pairs)
        replies = await asyncio.gather(
            *(call(self._store(place)) for (*_, call), place in zip(wanted, places, strict=True))
        )
        found = await self._pipeline(READ, [(new,) for _, new in pairs])
        for (number, name, _), place, reply, read in zip(wanted, places, replies, found, strict=True):
            self._known[number, name] = self._note(_state(contents(read)), place), reply
        twice = [(keys.prefix("turnpool", str(place)),) for place in places if place not in self._states]
        await self._pipeline(FORGET, twice)

    def _store(self, place: int) -> Store:
        nodes = OneNode(self.redis, "turnpool", 0)
        nodes.prefixes = (keys.prefix("turnpool", str(place)),)
        # Calls of one batch go out together.
        nodes.node = self._node
        store = Store(nodes, SETTINGS)
        store._lease_ms = LEASE_MS
        return store

    async def _pipeline(self, script: str, prefixes: Iterable[tuple[str, ...]]) -> list[Any]:
        """Run one of the scripts above for each."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for given in prefixes:
                pipeline.evalsha(self._digests[script], len(given), *given)
            replies: list[Any] = await pipeline.execute()
        return replies

    def _note(self, state: State, place: int) -> int:
        number = self._partitions.setdefault(state, place)
        self._states.setdefault(number, state)
        return number


def _state(found: Contents) -> State:
    turns = tuple(_turn(found, turn_id) for turn_id in TURNS[: found.given])
    wrong = tuple(broken(found))
    aside = (found.suspects, found.trials)
    return State(turns, found.ready, found.leases, *aside, found.missing, found.pulse, wrong)


def _turn(found: Contents, turn_id: str) -> Turn:
    if turn_id not in found.turns:
        return GONE
    fields, text = found.turns[turn_id], text_of(found.logs[turn_id])
    status, attempt, losses = fields["status"], int(fields["attempt"]), int(fields["losses"])
    cancel = "cancel" in fields
    if status in ENDS.values():
        return Turn(status, attempt, losses, cancel, text=text)
    late, deleted, step = fields["deadline_at"] == "1", "deleted" in fields, found.steps[turn_id]
    blame = " ".join(
        fields.get(name, "") for name in ("blame", "own", "limit", "group", "base", "said", "steps")
    )
    return Turn(status, attempt, losses, cancel, int(fields["seq"]), text, late, deleted, step, blame)
