"""What a worker's probes and its keeper know of it."""

import asyncio
import threading
import time

# Seconds between two beats of the loop.
BEAT_SECONDS = 0.25
# A loop may stand still for this part of TURNPOOL_HANG_SECONDS before anything is done about it.
NOTICE_PART = 6
# Leases without a renewal after which the worker is not ready.
UNRENEWED_LEASES = 3


class Health:
    """Set by the loop's, the keeper's and Celery's thread; read by any."""

    def __init__(self, lease_seconds: float, hang_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self.notice_seconds = hang_seconds / NOTICE_PART
        self.hang_seconds = hang_seconds
        self.thread = 0
        self.draining = False
        # Whether the loop stands still, as the watchdog has noticed.
        self.hung = False
        self._beat_at: float | None = None
        self._renewed_at: float | None = None
        self._broker_connected = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop beat. Called on its thread."""
        self.thread = threading.get_ident()
        self._beat(loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat_at = time.monotonic()
        loop.call_later(BEAT_SECONDS, self._beat, loop)

    def renewed(self) -> None:
        """The store has taken the leases and the worker's record."""
        self._renewed_at = time.monotonic()

    def broker_connected(self, *, connected: bool) -> None:
        """Celery has connected to the broker, or lost it."""
        self._broker_connected = connected

    @property
    def stalled_seconds(self) -> float:
        """For how long the loop has not beaten; 0 before it starts."""
        return 0.0 if self._beat_at is None else time.monotonic() - self._beat_at

    def ill(self) -> str:
        """Why the process should be restarted, or ''. Redis being away is no reason."""
        stalled = self.stalled_seconds
        return f"the event loop has stood still for {stalled:.0f} s" if stalled > self.notice_seconds else ""

    def unready(self) -> str:
        """Why the worker runs no new turns, or ''."""
        if self._beat_at is None:
            return "the worker is starting"
        if ill := self.ill():
            return ill
        if self.draining:
            return "the worker is draining"
        age = None if self._renewed_at is None else time.monotonic() - self._renewed_at
        if age is None or age > UNRENEWED_LEASES * self._lease_seconds:
            return "the store does not take the worker's leases"
        return "" if self._broker_connected else "the broker is not connected"
