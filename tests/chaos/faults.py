"""What can be injected, and the schedule that a seed gives."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, count


class Kind(StrEnum):
    """Faults. Those of `ON_REDIS` keep every process from Redis for a time."""

    KILL_WORKER = "worker killed"
    TERM_WORKER = "worker told to stop, long grace"
    HAND_BACK = "worker told to stop, short grace"
    STOP_WORKER = "worker stopped past its lease"
    PAUSE_WORKER = "worker stopped within its lease"
    KILL_API = "API killed"
    TERM_API = "API told to stop"
    STOP_API = "API stopped"
    CUT = "connections to Redis cut"
    SLOW = "Redis slow"
    REFUSE = "Redis refuses connections"
    FREEZE = "Redis stopped"
    KILL_REDIS = "Redis killed"
    LOSE_WAKEUPS = "wake-ups lost"
    DOUBLE_WAKEUPS = "wake-ups doubled"
    ROLL = "rolling restart"


WORKERS, APIS = 3, 2
ON_REDIS = frozenset({Kind.CUT, Kind.SLOW, Kind.REFUSE, Kind.FREEZE, Kind.KILL_REDIS})
KILLS = frozenset({Kind.KILL_WORKER, Kind.KILL_API})
ON_API = frozenset({Kind.KILL_API, Kind.TERM_API, Kind.STOP_API})

# How often each comes in one shuffled deck, and the least and most seconds it lasts.
DECK = {
    Kind.KILL_WORKER: (3, 0, 0),
    Kind.TERM_WORKER: (1, 0, 0),
    Kind.HAND_BACK: (2, 0, 0),
    Kind.STOP_WORKER: (2, 4, 8),
    Kind.PAUSE_WORKER: (1, 0.3, 1.5),
    Kind.KILL_API: (1, 0, 0),
    Kind.TERM_API: (1, 0, 0),
    Kind.STOP_API: (1, 0.5, 4),
    Kind.CUT: (2, 0, 0),
    Kind.SLOW: (1, 1, 4),
    Kind.REFUSE: (1, 0.5, 3),
    # Longer than clients of Redis wait for an answer, at times: calls are then carried out, and repeated.
    Kind.FREEZE: (1, 1, 7),
    Kind.KILL_REDIS: (1, 1, 20),
    Kind.LOSE_WAKEUPS: (2, 0, 0),
    Kind.DOUBLE_WAKEUPS: (1, 0, 0),
}
# Seconds: from fault to fault; a round of storm, calm and rolling restart; its last two parts.
PAUSES = (0.8, 2.4)
ROUND, CALM, ROLLING = 120.0, 6.0, 22.0


@dataclass(frozen=True)
class Fault:
    """`at` and `seconds` it lasts, from the start of the load; `slot`: which of its kind of process."""

    at: float
    kind: Kind
    slot: int
    seconds: float


def schedule(seed: int, seconds: float) -> list[Fault]:
    """Rounds of faults, each with a rolling restart in the end if there is the time."""
    rng = random.Random(f"faults {seed}")  # noqa: S311 - the same seed, the same faults
    rounds = max(1, round(seconds / ROUND))
    length = seconds / rounds
    deck: Iterator[Kind] = chain.from_iterable(_shuffled(rng) for _ in count())
    faults = []
    for start in (length * number for number in range(rounds)):
        rolls = length >= 2 * (CALM + ROLLING)
        end = start + length - (CALM + ROLLING if rolls else 0)
        faults += _storm(rng, deck, start, end)
        if rolls:
            faults.append(Fault(end + CALM, Kind.ROLL, 0, ROLLING))
    return faults


def _shuffled(rng: random.Random) -> list[Kind]:
    """A deck: each kind once, so that a short run has them all, then the rest."""
    rest = [kind for kind, (number, *_) in DECK.items() for _ in range(number - 1)]
    return [*rng.sample(list(DECK), len(DECK)), *rng.sample(rest, len(rest))]


def _storm(rng: random.Random, deck: Iterator[Kind], start: float, end: float) -> list[Fault]:
    """Faults one after the other, all over by the end; the deck goes on from storm to storm."""
    faults = []
    at = start + rng.uniform(*PAUSES)
    while at < end:
        kind = next(deck)
        _, least, most = DECK[kind]
        # Squared: mostly short, now and then as long as can be.
        seconds = min(least + (most - least) * rng.random() ** 2, max(end - at, least), (end - start) / 4)
        faults.append(Fault(at, kind, rng.randrange(APIS if kind in ON_API else WORKERS), seconds))
        at += rng.uniform(*PAUSES)
    return faults
