"""What clients and the log are told of a turn that failed.

An exception's text may hold anything: keys, addresses, other users' data. It goes to the log, and to clients
only where TURNPOOL_SHOW_ERRORS says so; neither gets what looks like a secret.
"""

from turnpool.errors import AgentOutputError, ProviderError, TransientProviderError, TurnpoolError
from turnpool.logs import get_logger
from turnpool.models import TurnRecord
from turnpool.redaction import redact

log = get_logger(__name__)

# Characters of an exception that a client is told.
MAX_CHARACTERS = 500


class Failures:
    """Describes the errors of one attempt."""

    def __init__(self, turn: TurnRecord, *, show_errors: bool) -> None:
        self._where = {"turn": turn.id, "attempt": turn.attempt, "agent": turn.agent}
        self._shown = show_errors
        self._log_has_it = f"The worker's log has its text under turn {turn.id}, attempt {turn.attempt}."

    def describe(self, error: BaseException) -> tuple[str, str]:
        """An error's code and message for the client; all of it goes to the log."""
        if isinstance(error, TurnpoolError):
            code, public, message = error.code, error.public, error.message
            if code == AgentOutputError.code:
                log.error("agent_failed", **self._where, exc_info=error)
            else:
                log.warning("turn_failed", **self._where, code=code, error=message)
        else:
            kind = type(error).__name__
            code, public, message = "agent_error", f"The agent raised {kind}.", f"{kind}: {error}"
            log.error("agent_failed", **self._where, exc_info=error)
        if self._shown:
            public = message
        elif public != message:
            public = f"{public} {self._log_has_it}"
        # Cut first: half of a secret would not be known as one.
        public = redact(public)[:MAX_CHARACTERS]
        # Half a surrogate pair, which a broken message may hold, cannot be written.
        return code, public.encode(errors="replace").decode()

    @staticmethod
    def asks_too_much(error: TransientProviderError) -> ProviderError:
        """The error of a provider that asks to wait for longer than the turn may."""
        waits = f"It asks to wait {error.retry_after:g} s, longer than the turn's deadline allows."
        return ProviderError(f"{error.message} {waits}", f"{error.public} {waits}")
