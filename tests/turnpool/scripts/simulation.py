"""A pool of workers some of whose turns kill them: the real scripts, in a time of its own."""

from collections import Counter
from dataclasses import dataclass, field

from tests.turnpool.scripts import kit
from tests.turnpool.scripts.kit import MakeTurn
from turnpool import keys
from turnpool.events import delta
from turnpool.ids import unscoped
from turnpool.models import Claim
from turnpool.store.store import Held, Store

TICK, LOOK, RESTART = 250, 500, 2000
# Turns that a worker claims before the first of them has run.
WAVE = 10
QUEUE = "turns"

# Every time that the scripts compare with the server's, some milliseconds earlier: as if they had passed.
PASS_TIME = """
local function earlier(key, field)
  local value = tonumber(redis.call('HGET', key, field) or '')
  if value and value > 0 then redis.call('HSET', key, field, string.format('%.0f', value - ARGV[1])) end
end
for _, set in ipairs({KEYS[1], KEYS[2]}) do
  for _, id in ipairs(redis.call('ZRANGE', set, 0, -1)) do redis.call('ZINCRBY', set, -ARGV[1], id) end
end
earlier(KEYS[3], 'at')
earlier(KEYS[3], 'grace')
for _, field in ipairs(redis.call('HKEYS', KEYS[4])) do
  local n, at = string.match(redis.call('HGET', KEYS[4], field), '^(%d+) (%d+)$')
  if n then redis.call('HSET', KEYS[4], field, string.format('%d %.0f', n, at - ARGV[1]))
  elseif field:match('^tried') then earlier(KEYS[4], field) end
end
for i = 5, #KEYS do
  earlier(KEYS[i], 'claimed_at')
  earlier(KEYS[i], 'deadline_at')
end
"""


@dataclass(frozen=True)
class Kind:
    """How a turn behaves. Healthy ones end after `seconds`; others then kill their worker.

    `says`: seconds between two pieces of text, 0 for a silent turn. `posted`: when, in seconds.
    """

    seconds: float
    kills: bool = False
    says: float = 0
    priority: int = 5
    posted: float = 0


@dataclass
class Running:
    """An attempt."""

    kind: Kind
    held: Held
    age: int = 0


@dataclass
class Worker:
    """A worker with its turns; dead until `starts`."""

    name: str
    starts: int = 0
    turns: dict[str, Running] = field(default_factory=dict)


class Simulation:
    """`ends`: how each turn ended, and when (s). `crashes`: of workers."""

    def __init__(self, store: Store, kinds: dict[str, Kind], workers: int, slots: int = 200) -> None:
        self.store = Store(store.nodes, store.settings.model_copy(update={"lease_seconds": 3.0}))
        self.kinds, self.slots = kinds, slots
        self.workers = [Worker(f"w{n}") for n in range(workers)]
        self.ends: dict[str, tuple[str, float]] = {}
        self.crashes: Counter[str] = Counter()
        self.now = 0
        p = store.prefix
        self._times = [keys.leases(p, QUEUE), keys.trials(p, QUEUE), keys.pulse(p), keys.isolation(p, QUEUE)]
        self._times += [keys.turn(p, f"default:{name}.1") for name in kinds]

    async def _post(self, new_turn: MakeTurn) -> None:
        for name, kind in self.kinds.items():
            if self.now <= kind.posted * 1000 < self.now + TICK:
                await self.store.submit(new_turn(name, priority=kind.priority, deadline_seconds=600))

    async def run(self, new_turn: MakeTurn, seconds: float) -> None:
        """Let time pass until all turns have ended. Fails after so many seconds of it."""
        while len(self.ends) < len(self.kinds):
            await self._post(new_turn)
            assert self.now < seconds * 1000, (
                f"not ended after {seconds} s: {set(self.kinds) - set(self.ends)}"
            )
            for worker in self.workers:
                if worker.starts <= self.now:
                    await self._work(worker)
            await self.store.redis.eval(PASS_TIME, len(self._times), *self._times, TICK)
            self.now += TICK
            for worker in self.workers:
                for running in worker.turns.values():
                    running.age += TICK

    async def _work(self, worker: Worker) -> None:
        if not await self._advance(worker):
            return
        if self.now % LOOK == 0:
            held = [(turn, running.held.attempt) for turn, running in worker.turns.items()]
            await self.store.renew(kit.worker_info(worker.name), held)
            for turn in (await self.store.reap(QUEUE)).ended:
                await self._end(turn)
        claimed = 0
        while len(worker.turns) < self.slots:
            claim, _ = await self.store.claim(QUEUE, worker.name)
            if claim:
                self._begin(worker, claim)
                claimed += 1
            if (not claim or claimed % WAVE == 0) and not await self._advance(worker):
                return
            if not claim:
                return

    def _begin(self, worker: Worker, claim: Claim) -> None:
        turn = claim.turn
        held = Held(turn.scoped_id, turn.attempt, turn.seq)
        worker.turns[turn.scoped_id] = Running(self.kinds[turn.session_id], held)

    async def _advance(self, worker: Worker) -> bool:
        """Let the turns say and do what is due; whether the worker lives."""
        for turn, running in list(worker.turns.items()):
            kind = running.kind
            if kind.says and running.age and running.age % int(kind.says * 1000) == 0:
                running.held = await kit.write(self.store, running.held, delta("word "))
            if running.age < kind.seconds * 1000:
                continue
            if kind.kills:
                self.crashes[unscoped(turn)] += 1
                worker.turns.clear()
                worker.starts = self.now + RESTART
                return False
            await self.store.settle(running.held, [], kit.completed())
            del worker.turns[turn]
            await self._end(turn)
        return True

    async def _end(self, turn: str) -> None:
        record = await kit.record(self.store, unscoped(turn))
        self.ends[record.session_id] = record.status, self.now / 1000

    def failed(self) -> dict[str, float]:
        """The turns that failed, and when."""
        return {name: when for name, (status, when) in self.ends.items() if status == "failed"}
