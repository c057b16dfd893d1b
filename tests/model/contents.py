"""What a partition of Redis holds, read as a whole, without times."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from turnpool import keys
from turnpool.events import data_of
from turnpool.ids import scoped, unscoped

SESSION, QUEUE, TENANT, WORKER = "s", "turns", "default", "w"
TURNS = ("s.1", "s.2", "s.3")
STORED = scoped(TENANT, SESSION)
STEP = "step"

Read = dict[str, Any]

# What has a time to live gets days of it: states are kept while others are explored.
READ = """
local found = {}
for _, key in ipairs(names) do
  local kind, value = redis.call('TYPE', KEYS[1] .. key)['ok'], nil
  if kind == 'hash' then value = redis.call('HGETALL', KEYS[1] .. key)
  elseif kind == 'list' then value = redis.call('LRANGE', KEYS[1] .. key, 0, -1)
  elseif kind == 'zset' then value = redis.call('ZRANGE', KEYS[1] .. key, 0, -1, 'WITHSCORES')
  elseif kind == 'stream' then value = redis.call('XRANGE', KEYS[1] .. key, '-', '+')
  elseif kind == 'string' then value = redis.call('GET', KEYS[1] .. key) end
  local life = redis.call('TTL', KEYS[1] .. key)
  if life > 0 then redis.call('EXPIRE', KEYS[1] .. key, 1000000) end
  if value then table.insert(found, {key, value, life}) end
end
return found
"""


class Event(NamedTuple):
    """An event of a turn's log."""

    kind: str
    seq: int
    attempt: int
    text: str
    keep: int


@dataclass(frozen=True)
class Contents:
    """All that is there.

    `given`: how many turns there have been; `steps`: what each has recorded; `leases`: turns, and whether
    their lease lasts; `pulse`: whether nobody was heard for long, and whether a grace runs; `immortal`: keys
    without a time to live that should have one; `left`: keys of a turn or session that is not there.
    """

    given: int

    turns: dict[str, dict[str, str]]
    logs: dict[str, list[Event]]
    steps: dict[str, str]
    messages: list[str]
    pending: list[str]
    head: str
    ready: frozenset[str]
    queued: frozenset[str]
    deadlines: frozenset[str]
    leases: frozenset[tuple[str, bool]]
    suspects: frozenset[str]
    trials: frozenset[str]
    missing: int
    pulse: tuple[bool, bool]
    immortal: list[str]
    left: list[str]


def names() -> list[str]:
    """Every key that there can be, without its prefix. The test checks that there is no other."""
    names = [f("", STORED) for f in (keys.session, keys.line, keys.messages, keys.pending)]
    names += [f("", scoped(TENANT, turn_id)) for turn_id in TURNS for f in (keys.turn, keys.log, keys.steps)]
    names += [f("", QUEUE) for f in (keys.tenants, keys.service, keys.queued, keys.deadlines)]
    names += [f("", QUEUE) for f in (keys.leases, keys.missing, keys.suspects, keys.trials, keys.isolation)]
    names += [keys.ready("", QUEUE, TENANT), keys.sessions("", TENANT), keys.worker("", WORKER)]
    names += [f("") for f in (keys.newest, keys.pulse, keys.watched, keys.workers)]
    return names + [keys.idempotency("", STORED, str(post)) for post, _ in enumerate(TURNS, 1)]


def contents(reply: list[tuple[bytes, Any, int]]) -> Contents:
    """What READ gave, in order."""
    found: Read = {key.decode(): (value, ttl) for key, value, ttl in reply}
    turns = {
        turn_id: fields
        for turn_id in TURNS
        if "id" in (fields := _hash(found, keys.turn("", scoped(TENANT, turn_id))))
    }
    line = _hash(found, keys.line("", STORED))
    return Contents(
        given=int(line.get("n", 0)),
        turns=turns,
        logs={turn_id: _log(found, turn_id) for turn_id in turns},
        steps={
            turn_id: _hash(found, keys.steps("", scoped(TENANT, turn_id))).get(STEP, "") for turn_id in turns
        },
        messages=_list(found, keys.messages("", STORED)),
        pending=list(map(unscoped, _list(found, keys.pending("", STORED)))),
        head=unscoped(line.get("head", "")),
        ready=_members(found, keys.ready("", QUEUE, TENANT)),
        queued=_members(found, keys.queued("", QUEUE)),
        deadlines=_members(found, keys.deadlines("", QUEUE)),
        leases=frozenset(
            (unscoped(name), float(at) > 1) for name, at in _hash(found, keys.leases("", QUEUE)).items()
        ),
        suspects=_members(found, keys.suspects("", QUEUE)),
        trials=_members(found, keys.trials("", QUEUE)),
        missing=int(_hash(found, keys.missing("", QUEUE)).get("count", 0)),
        pulse=_pulse(_hash(found, keys.pulse(""))),
        immortal=[key for key, (_, ttl) in found.items() if ttl < 0 and not key.startswith(keys.INDEXES)],
        left=_left(found, turns),
    )


def _left(found: Read, turns: Iterable[str]) -> list[str]:
    of_turn, of_session = (keys.turn, keys.log, keys.steps), (keys.messages, keys.pending)
    names = [f("", scoped(TENANT, turn_id)) for turn_id in TURNS if turn_id not in turns for f in of_turn]
    if keys.session("", STORED) not in found:
        names += [keys.sessions("", TENANT), *(f("", STORED) for f in of_session)]
    return [name for name in names if name in found]


def _log(found: Read, turn_id: str) -> list[Event]:
    entries, _ = found.get(keys.log("", scoped(TENANT, turn_id)), ((), 0))
    return [_event(data_of(fields[1])) for _, fields in entries]


def _event(data: dict[str, Any]) -> Event:
    return Event(data["type"], data["seq"], data["attempt"], data.get("text", ""), data.get("keep", 0))


def _pulse(fields: dict[str, str]) -> tuple[bool, bool]:
    """Whether nobody was heard for long, and whether the living have time to renew."""
    return fields.get("at") == "1", fields.get("grace", "0") not in ("0", "")


def _members(found: Read, key: str) -> frozenset[str]:
    """The turns in a sorted set."""
    return frozenset(map(unscoped, _hash(found, key)))


def _hash(found: Read, key: str) -> dict[str, str]:
    flat, _ = found.get(key, ((), 0))
    return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _list(found: Read, key: str) -> list[str]:
    values, _ = found.get(key, ((), 0))
    return [value.decode() for value in values]
