"""The states of a turn."""

from enum import StrEnum


class Status(StrEnum):
    """Where a turn is in its life: `queued -> in_progress -> completed | failed | cancelled`."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the turn has ended for good."""
        return self in TERMINAL


ACTIVE = frozenset({Status.QUEUED, Status.IN_PROGRESS})
TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
