"""How many pods, shards and connections some traffic needs, and how far each limit is used up.

A cluster has 64 partitions. What is asked of all of them (looks, flushes, claims) costs a pipeline for each
shard and a command for each partition, on both sides: that is added here to what was measured on one server.
"""

import functools
import math
import random
import statistics
from dataclasses import dataclass
from typing import NamedTuple

from bench.scale.costs import Costs
from bench.scale.valkey import Fixed, Side
from bench.speed.figures import MODEL_TTFT
from bench.speed.loads import PARAMS, shape
from turnpool.keys import CLUSTER_PARTITIONS
from turnpool.redis.connections import CONNECTIONS
from turnpool.settings import Settings
from turnpool.store.backlog import COUNT_SECONDS
from turnpool.store.wakeups import TOP_UP_SECONDS
from turnpool_workers import keeper
from turnpool_workers.attempt.writer import FLUSH_SHARE, MAX_INTERVAL

# Shares of a core: a process above this is late, a server above that has no room for a failover or a burst.
POD_BUSY, STORE_BUSY = 0.6, 0.5
# Turns of a worker: the default of TURNPOOL_CONCURRENCY.
MAX_SLOTS = 200
# The chart's targetUtilization: what KEDA keeps a worker's slots filled to.
FILLED = 0.8
# Bytes of data of a shard: half of a machine of 64 GB; rewrites of the AOF and fragmentation take the rest.
SHARD_BYTES = 32e9
# Pods of a Kubernetes cluster; https://kubernetes.io/docs/setup/best-practices/cluster-large/
MAX_PODS = 150_000
# Connections to the broker of a worker (Celery's and the keeper's) and of an API: as CLIENT LIST told.
BROKER_WORKER, BROKER_API = 6, 2
# Seconds between two looks of an API (turnpool_api/upkeep.py), and its rounds in one: expire, ready.
API_LOOK, API_ROUNDS = 2.0, 2
SAMPLES = 20_000
ITL = PARAMS["itl_ms"] / 1000


def _default(setting: str) -> float:
    value: float = Settings.model_fields[setting].default
    return value


# Seconds that a turn and its session can be read: their settings' defaults.
LOG_TTL, SESSION_TTL = _default("log_ttl"), _default("session_ttl")
# Clients of a server by default (`maxclients`).
MAX_CLIENTS = 10_000


@dataclass(frozen=True)
class Options:
    """What may be otherwise: two settings, and two things that only code can change."""

    flush: float = _default("flush_ms") / 1000
    lease: float = _default("lease_seconds")
    claim_rounds: float = 2
    """How often a claim asks all partitions."""
    looks: float = 1
    """Share of the partitions that each worker and API looks after."""


@dataclass(frozen=True)
class Traffic:
    """Of so many open sessions: turns that stream at a moment, turns and tokens a second."""

    sessions: float
    running: float
    turns: float
    tokens: float

    @property
    def answer(self) -> float:
        """Tokens of a turn."""
        return self.tokens / self.turns


@dataclass(frozen=True)
class Plan:
    """What it takes."""

    slots: int
    """Turns that a worker can run."""
    interval: float
    """Seconds between two events of a turn."""
    events: float
    workers: int
    apis: int
    shards: int
    store: dict[str, float]
    """Cores of all shards together, by what for."""
    log_bytes: float
    record_bytes: float
    connections: int
    """To each shard, at most."""
    broker_cores: float
    keda: int
    """Workers that KEDA asks for."""
    limits: dict[str, float]
    """Share of each limit that is used up, with as many shards as there can be; over 1 it gives way."""

    @property
    def store_cores(self) -> float:
        """Of all shards together."""
        return sum(self.store.values())

    def fits(self) -> bool:
        """Whether these shards are enough."""
        room = 1 / fullest(self.shards)
        return self.limits[STORE_CPU] <= room and self.limits[STORE_MEMORY] <= room


def fullest(shards: int) -> int:
    """Partitions of the shard that has the most: they are even only where their number divides 64."""
    return math.ceil(CLUSTER_PARTITIONS / shards)


STORE_CPU, STORE_MEMORY = "CPU of the store", "memory of the store"


def conversations(sessions: float) -> Traffic:
    """People who ask, read, think and ask again: the shapes of the load of that name."""
    tokens, pause = _shapes()
    return _traffic(sessions, tokens, pause)


def all_at_once(sessions: float) -> Traffic:
    """The same answers without a pause between them."""
    return _traffic(sessions, _shapes()[0], 0.0)


def _traffic(sessions: float, tokens: float, pause: float) -> Traffic:
    streaming = MODEL_TTFT + tokens * ITL
    turns = sessions / (streaming + pause)
    return Traffic(sessions, turns * streaming, turns, turns * tokens)


@functools.cache
def _shapes() -> tuple[float, float]:
    """Mean tokens of an answer, mean seconds until the next question."""
    rng = random.Random("scale")  # noqa: S311 - the same each time
    turns = [turn for _ in range(SAMPLES) for turn in shape(rng)]
    return statistics.mean(tokens for tokens, _ in turns), statistics.mean(pause for _, pause in turns)


class Room(NamedTuple):
    """The most sessions that a pool carries, what gives way beyond, and its shards."""

    sessions: float
    first: str
    shards: int


class Model:
    """The costs, applied."""

    def __init__(self, costs: Costs, fixed: Fixed, options: Options | None = None) -> None:
        self.costs = costs
        self.fixed = fixed
        self.options = options or Options()

    def plan(self, traffic: Traffic) -> Plan:
        """With as few shards as will do; with 64 if none will."""
        plans = (self.with_shards(traffic, shards) for shards in range(1, CLUSTER_PARTITIONS + 1))
        return next((plan for plan in plans if plan.fits()), self.with_shards(traffic, CLUSTER_PARTITIONS))

    def most(self, traffic: Traffic) -> Room:
        """With any number of shards."""
        return max(self.room(traffic, shards) for shards in range(1, CLUSTER_PARTITIONS + 1))

    def room(self, traffic: Traffic, shards: int) -> Room:
        """With so many. All needs grow with the sessions, evenly where there are many."""
        limits = self.with_shards(traffic, shards).limits
        used = limits | {name: limits[name] * fullest(shards) for name in (STORE_CPU, STORE_MEMORY)}
        first = max(used, key=used.__getitem__)
        return Room(traffic.sessions / used[first], first, shards)

    def with_shards(self, traffic: Traffic, shards: int) -> Plan:
        """With so many."""
        slots = self._slots(traffic, shards)
        interval = self.interval(slots, shards)
        events = traffic.tokens / max(interval / ITL, 1.0)
        workers = math.ceil(traffic.running / slots)
        apis = self._apis(traffic, events, interval, shards)
        store = self._store(traffic, events, interval, workers, apis, shards)
        broker = self._broker(traffic, workers, apis)
        logs, records = self._memory(traffic, events)
        connections = apis * (1 + CONNECTIONS) + workers * (CONNECTIONS + keeper.CONNECTIONS)
        keda = math.ceil(traffic.running / max(math.floor(slots * FILLED), 1))
        limits = {
            STORE_CPU: sum(store.values()) / (CLUSTER_PARTITIONS * STORE_BUSY),
            STORE_MEMORY: (logs + records) / (CLUSTER_PARTITIONS * SHARD_BYTES),
            "connections to each shard": connections / MAX_CLIENTS,
            "CPU of the broker": broker / STORE_BUSY,
            "connections to the broker": (workers * BROKER_WORKER + apis * BROKER_API) / MAX_CLIENTS,
            "pods": (keda + apis) / MAX_PODS,
        }
        return Plan(
            slots,
            interval,
            events,
            workers,
            apis,
            shards,
            store,
            logs,
            records,
            connections,
            broker,
            keda,
            limits,
        )

    def interval(self, slots: float, shards: int) -> float:
        """Seconds between two events of a turn: as measured, or what a flush to so many shards asks for."""
        flush = FLUSH_SHARE * self._round(self.fixed.client, "call", shards)
        return max(self.costs.interval(slots), min(flush, MAX_INTERVAL), self.options.flush)

    def worker_busy(self, traffic: Traffic, slots: int, shards: int) -> float:
        """Share of a core of a worker that runs so many turns."""
        cost = self.costs.of["worker"]
        turns, tokens = (slots * each / traffic.running for each in (traffic.turns, traffic.tokens))
        interval = self.interval(slots, shards)
        side = self.fixed.client
        rounds = self._looks(side, shards) + self._flushes(side, interval, shards)
        claims = turns * self._claim(side, shards)
        own = cost.cores(turns, tokens / max(interval / ITL, 1.0), tokens) + cost.process(interval)
        return own + rounds + claims

    def _slots(self, traffic: Traffic, shards: int) -> int:
        """The most turns with which a worker is not too busy; one if it is with any."""
        slots = range(MAX_SLOTS, 0, -1)
        return next((n for n in slots if self.worker_busy(traffic, n, shards) <= POD_BUSY), 1)

    def _apis(self, traffic: Traffic, events: float, interval: float, shards: int) -> int:
        cost = self.costs.of["api"]
        room = POD_BUSY - cost.process(interval) - self._api_rounds(self.fixed.client, shards)
        return math.ceil(cost.cores(traffic.turns, events, traffic.tokens) / room)

    def _store(
        self, traffic: Traffic, events: float, interval: float, workers: int, apis: int, shards: int
    ) -> dict[str, float]:
        cost, side = self.costs.of["valkey"], self.fixed.server
        looks = workers * self._looks(side, shards) + apis * self._api_rounds(side, shards)
        return {
            "turns": cost.cores(traffic.turns, 0, traffic.tokens),
            "events": cost.cores(0, events, 0),
            # `second` is what a worker and an API ask of one partition, `flush` what a worker does.
            "looks": max(workers, apis) * cost.second + looks,
            "flushes": workers * (cost.flush / interval + self._flushes(side, interval, shards)),
            "claims": traffic.turns * self._claim(side, shards),
        }

    def _looks(self, side: Side, shards: int) -> float:
        """What a second of a worker's renewing, reaping, expiring and topping up costs more."""
        renewals = keeper.RENEWALS_PER_LEASE / self.options.lease
        looks = self.options.looks * (2 * renewals + 1 / TOP_UP_SECONDS)
        return (renewals + looks) * self._round(side, "call", shards)

    def _flushes(self, side: Side, interval: float, shards: int) -> float:
        """The same of its flushes. With some dozen turns there is one in nearly every partition."""
        return self._round(side, "call", shards) / interval

    def _api_rounds(self, side: Side, shards: int) -> float:
        """The same of an API, which once a second counts what waits, too."""
        calls = self.options.looks * API_ROUNDS / API_LOOK * self._round(side, "call", shards)
        return calls + self._round(side, "read", shards) / COUNT_SECONDS

    def _claim(self, side: Side, shards: int) -> float:
        """What a claim costs more."""
        return self.options.claim_rounds * self._round(side, "read", shards)

    def _round(self, side: Side, kind: str, shards: int) -> float:
        """What asking every partition costs more than asking one, which is all that one server has."""
        if shards == 1:
            return 0.0
        each: float = getattr(side, kind)
        return (shards - 1) * side.pipeline + (CLUSTER_PARTITIONS - 1) * each

    def _broker(self, traffic: Traffic, workers: int, apis: int) -> float:
        """A wake-up for each turn; each worker and API looks how long the list is."""
        look = self.fixed.server.pipeline + self.fixed.server.read
        return traffic.turns * self.fixed.wake_up + (workers / TOP_UP_SECONDS + apis / API_LOOK) * look

    def _memory(self, traffic: Traffic, events: float) -> tuple[float, float]:
        """Bytes of the logs, and of all else, of turns that have ended; those that run are few."""
        size = self.fixed.bytes
        logs = size.log(events / traffic.turns, traffic.answer) * LOG_TTL
        records = size.record(traffic.answer) * (LOG_TTL + SESSION_TTL)
        return traffic.turns * logs, traffic.turns * records
