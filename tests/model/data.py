"""States of Redis: each in a partition of its own, copied before a step, read after it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from tests.model.contents import READ, TURNS, Contents, contents, names
from tests.model.promises import ENDS, broken, text_of
from turnpool import keys
from turnpool.nodes import Node, OneNode
from turnpool.settings import Settings
from turnpool.store import Store

# Few losses end a turn.
SETTINGS = Settings(max_attempts=2)
# Days: whatever ends in the model ends by a step, however long all of them take.
LEASE_MS = 10**9

Call = Callable[[Store], Awaitable[Any]]

COPY = "for _, key in ipairs(names) do redis.call('COPY', KEYS[1] .. key, KEYS[2] .. key) end"
FORGET = "for _, key in ipairs(names) do redis.call('UNLINK', KEYS[1] .. key) end"


NAMES = f"local names = {{{', '.join(map(repr, names()))}}}\n"


class Turn(NamedTuple):
    """What matters of a turn for what may come. Of one that has ended it is no more where its events end."""

    status: str
    attempt: int
    losses: int
    cancel: bool
    seq: int
    text: str

    @property
    def ended(self) -> bool:
        """Whether it has its last event."""
        return self.status in ENDS.values()


class State(NamedTuple):
    """What matters of a state of Redis, and the promises that it breaks. Two that are equal go on alike."""

    turns: tuple[Turn, ...]
    ready: frozenset[str]
    leases: frozenset[tuple[str, bool]]
    missing: int
    pulse: tuple[bool, bool]
    broken: tuple[str, ...]

    def turn(self, turn_id: str) -> Turn:
        """A turn that is there."""
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
        (read,) = await self._pipeline(READ, [(keys.prefix("0"),)])
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
            (keys.prefix(str(number)), keys.prefix(str(place)))
            for (number, *_), place in zip(wanted, places, strict=True)
        ]
        await self._pipeline(COPY, pairs)
        replies = await asyncio.gather(
            *(call(self._store(place)) for (*_, call), place in zip(wanted, places, strict=True))
        )
        found = await self._pipeline(READ, [(new,) for _, new in pairs])
        for (number, name, _), place, reply, read in zip(wanted, places, replies, found, strict=True):
            self._known[number, name] = self._note(_state(contents(read)), place), reply
        twice = [(keys.prefix(str(place)),) for place in places if place not in self._states]
        await self._pipeline(FORGET, twice)

    def _store(self, place: int) -> Store:
        nodes = OneNode(self.redis)
        nodes.prefixes = (keys.prefix(str(place)),)
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
    turns = tuple(_turn(fields, text_of(found.logs[turn_id])) for turn_id, fields in found.turns.items())
    wrong = tuple(broken(found))
    return State(turns, found.ready, found.leases, found.missing, found.pulse, wrong)


def _turn(fields: dict[str, str], text: str) -> Turn:
    status = fields["status"]
    seq = 0 if status in ENDS.values() else int(fields["seq"])
    return Turn(status, int(fields["attempt"]), int(fields["losses"]), "cancel" in fields, seq, text)
