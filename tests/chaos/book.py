"""What was injected, what was seen, what must not be."""

import time
from collections import Counter
from dataclasses import dataclass, field

# Details kept of each thing that must not be; the count goes on.
MAX_DETAILS = 5
# Seconds from an event to its client, faults aside.
LATE = 8.0


@dataclass(frozen=True)
class Interval:
    """Something that lasted, in Unix seconds. `pid` of the process that it befell, 0 for Redis."""

    kind: str
    start: float
    end: float
    pid: int = 0


@dataclass(frozen=True)
class Late:
    """An event that a client got late: when it could have come, and when it came."""

    turn_id: str
    due: float
    came: float


@dataclass
class Book:
    """Counts by name, and violations of the promises with the first details of each."""

    seen: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    details: dict[str, list[str]] = field(default_factory=dict)
    intervals: list[Interval] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)

    def violation(self, what: str, detail: str) -> None:
        """A promise was broken."""
        self.broken[what] += 1
        details = self.details.setdefault(what, [])
        if len(details) < MAX_DETAILS:
            details.append(f"{time.strftime('%H:%M:%S')} {detail}")

    def expect(self, condition: object, what: str, detail: str) -> None:
        """A promise is broken unless the condition holds."""
        if not condition:
            self.violation(what, detail)

    def came(self, turn_id: str, due: float) -> None:
        """An event came on a stream."""
        now = time.time()
        if now - due > LATE:
            self.late.append(Late(turn_id, due, now))

    def figure(self, name: str, value: float) -> None:
        """One more measurement."""
        self.figures.setdefault(name, []).append(value)
