"""What can go wrong, each with a code for programs and a message for people.

The API turns `code` into an HTTP status in one place, `turnpool_api.http.problems`; the core knows no HTTP.
"""

import math
from collections.abc import Sequence
from typing import ClassVar


class TurnpoolError(Exception):
    """Base of every error that a caller may see.

    `message` goes to the log, `public` to clients; they differ where the message quotes someone else.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, public: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.public = public or message


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


class StoreAwayError(TurnpoolError):
    """Redis does not answer, or refuses for now: it restarts, fails over, is full, has taken a right away."""

    code = "redis_away"

    def __init__(self, reason: str) -> None:
        super().__init__(f"Redis is away: {reason}", public="The store does not answer; try again soon.")
        self.reason = reason


class MissingExtraError(SettingsError):
    """A program needs an optional part of turnpool that is not installed."""

    def __init__(self, program: str, extras: Sequence[str]) -> None:
        super().__init__(f"{program} needs more: pip install 'turnpool[{','.join(extras)}]'")


class StepInterruptedError(TurnpoolError):
    """A step that may run only once was under way when its attempt ended, so its effect is unknown."""

    code = "step_interrupted"

    def __init__(self, name: str, raised: BaseException | None = None) -> None:
        what, unknown = f"Step {name!r} may run once only and", "whether it took effect is not known."
        why = f"raised {type(raised).__name__}" if raised else "was interrupted"
        words = f": {raised}" if raised else ""
        super().__init__(f"{what} {why}{words}; {unknown}", f"{what} {why}; {unknown}")


class AgentOutputError(TurnpoolError):
    """An agent yielded something that cannot be shown or stored; its author has to correct it."""

    code = "agent_error"


class AgentExitError(TurnpoolError):
    """An agent raised what would end its worker's event loop, and all turns with it."""

    code = "agent_error"

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"The agent raised {type(error).__name__}, which ends its turn only.")


class StepTypeError(AgentOutputError, TypeError):
    """A step was given, or gave, what cannot be recorded as JSON."""


class StepSizeError(AgentOutputError, ValueError):
    """A step was given, or gave, more than can be recorded."""


class InvalidParamsError(TurnpoolError):
    """The turn's `params` have something that its agent does not accept."""

    code = "invalid_params"


class ProviderError(TurnpoolError):
    """The model's provider refused or broke; agents raise it, the turn fails with it.

    `message` may have the provider's own words, `public` must not: those can hold keys.
    """

    code = "provider_error"

    def __init__(self, message: str, public: str = "The model's provider refused or broke off.") -> None:
        super().__init__(message, public)


class TransientProviderError(ProviderError):
    """An error of the provider that may pass: the turn is tried again with back-off.

    `retry_after`: seconds the provider asked to wait, or None. `unavailable`: it took no request (too many,
    loading, no connection). Neither of these uses up a try.
    """

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        *,
        public: str = "The model's provider does not answer, or breaks off.",
        unavailable: bool = False,
    ) -> None:
        super().__init__(message, public)
        # 0, and what is no time, is no hint: whoever obeyed it would ask at once.
        self.retry_after = retry_after if retry_after and 0 < retry_after < math.inf else None
        self.unavailable = unavailable
