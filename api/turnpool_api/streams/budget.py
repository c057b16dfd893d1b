"""Bytes that the streams of a process may hold for their clients.

Each stream has a share of what is left, so a few slow clients get large pieces, and thousands get small
ones. None waits for another: the least share is always there.
"""

# For all streams together. Some hundred slow clients fill it; each one more costs LEAST_SHARE.
STREAM_BYTES = 24 * 1024 * 1024
# One stream takes a small part of what is left, so that what thousands take at once adds up to no more.
PART = 32
# More makes no stream faster: it is a page of some hundred events, and one round trip.
MAX_SHARE = 256 * 1024
# Some tens of tokens, or a few large events.
LEAST_SHARE = 16 * 1024


class Budget:
    """What the streams hold, and how much one more may."""

    def __init__(self, total: int = STREAM_BYTES) -> None:
        self.held = 0
        self._total = total

    @property
    def share(self) -> int:
        """Bytes that one stream may hold now."""
        return max(LEAST_SHARE, min(MAX_SHARE, (self._total - self.held) // PART))
