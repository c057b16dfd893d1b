"""The states of a turn."""

from enum import StrEnum


class Status(StrEnum):
    """Where a turn is in its life: `queued -> in_progress -> completed | failed | cancelled`."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def _missing_(cls, value: object) -> "Status | None":
        """A status of a newer release: shown as it is, and not terminal, since its turn may go on."""
        if not isinstance(value, str):
            return None
        unknown = str.__new__(cls, value)
        unknown._name_, unknown._value_ = value, value
        return unknown

    @property
    def terminal(self) -> bool:
        """Whether the turn has ended for good."""
        return self in TERMINAL


ACTIVE = frozenset({Status.QUEUED, Status.IN_PROGRESS})
TERMINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
