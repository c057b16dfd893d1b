"""What can go wrong, each with a code for programs and a message for people.

The API turns `code` into an HTTP status in one place (`api/problems.py`); the core knows no HTTP.
"""

from typing import ClassVar


class TurnpoolError(Exception):
    """Base of every error that a caller may see."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SessionNotFoundError(TurnpoolError):
    """The session does not exist, has expired, or belongs to another tenant."""

    code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"There is no session {session_id!r}: it never was, or it has expired.")


class SessionExistsError(TurnpoolError):
    """A session with this id is there already."""

    code = "session_exists"

    def __init__(self, session_id: str) -> None:
        super().__init__(f"Session {session_id!r} exists already; post a turn to it.")


class TurnNotFoundError(TurnpoolError):
    """The turn does not exist, has expired, or belongs to another tenant."""

    code = "turn_not_found"

    def __init__(self, turn_id: str) -> None:
        super().__init__(f"There is no turn {turn_id!r}: it never was, or it has expired.")


class LogExpiredError(TurnpoolError):
    """The turn is known, but its events are gone."""

    code = "log_expired"

    def __init__(self, turn_id: str) -> None:
        super().__init__(f"The events of turn {turn_id!r} have expired; read the turn itself.")


class SessionBusyError(TurnpoolError):
    """The session has a turn that has not ended, and `on_busy` says reject."""

    code = "session_busy"

    def __init__(self, turn_id: str) -> None:
        super().__init__(
            f"Turn {turn_id} of this session has not ended; wait, cancel it, or "
            "post with on_busy queue or interrupt."
        )
        self.turn_id = turn_id


class QueueFullError(TurnpoolError):
    """Too many turns wait in the queue."""

    code = "queue_full"

    def __init__(self, queue: str) -> None:
        super().__init__(f"Queue {queue!r} is full; try again later.")
        self.queue = queue


class SessionFullError(TurnpoolError):
    """Too many turns of one session wait."""

    code = "session_full"

    def __init__(self, session_id: str, queue: str) -> None:
        super().__init__(f"Too many turns of session {session_id!r} wait; let some end first.")
        self.queue = queue


class IdempotencyMismatchError(TurnpoolError):
    """An idempotency key came again with another body."""

    code = "idempotency_mismatch"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used with another body; choose a new key.")


class UnknownAgentError(TurnpoolError):
    """No agent of this name is configured."""

    code = "unknown_agent"

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"There is no agent {name!r}; there are: {', '.join(known)}.")


class LeaseLostError(TurnpoolError):
    """This attempt no longer holds the turn: another worker has it, or it has ended."""

    code = "lease_lost"

    def __init__(self, turn_id: str, attempt: int) -> None:
        super().__init__(f"Attempt {attempt} no longer holds turn {turn_id}.")


class EventsLostError(TurnpoolError):
    """The server has lost the last events of a turn, those after `seq`: a restart, a fail-over."""

    code = "events_lost"

    def __init__(self, turn_id: str, seq: int) -> None:
        super().__init__(f"The log of turn {turn_id} ends at {seq}, before what was written.")
        self.seq = seq


class NotDurableError(TurnpoolError):
    """It is not known in time that what was written is on disk or on a replica, as the settings ask."""

    code = "not_durable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The turn may not be safe ({reason}); post it again, with its Idempotency-Key.")
        self.reason = reason


class SettingsError(TurnpoolError):
    """A setting has a wrong value."""

    code = "bad_settings"


class StepInterruptedError(TurnpoolError):
    """A step that may run only once was under way when its attempt ended, so its effect is unknown."""

    code = "step_interrupted"

    def __init__(self, name: str, raised: BaseException | None = None) -> None:
        why = f"raised {type(raised).__name__}: {raised}" if raised else "was interrupted"
        super().__init__(f"Step {name!r} may run once only and {why}; whether it took effect is not known.")


class ProviderError(TurnpoolError):
    """The model's provider refused or broke; agents raise it, the turn fails with it."""

    code = "provider_error"


class TransientProviderError(ProviderError):
    """An error of the provider that may pass: the turn is tried again with back-off.

    `retry_after`: seconds the provider asked to wait, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
