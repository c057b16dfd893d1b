"""How far a stream's client is in one turn."""

from turnpool.events import is_restart, is_terminal, seq_of


class Place:
    """`after`: the seq of the last event that was given. `over`: no more comes; `ended`: its last has come.

    A server that dies together with a worker may lose the end of a log that clients have seen
    (docs/reliability.md). What is written in its place has ids that they know. They are given it from
    where it tells them what stands: from the restart, or the end of the turn.
    """

    def __init__(self, after: int) -> None:
        self.after = after
        self.over = self.ended = False
        # The last event that the client has, if the log has lost it.
        self._lost = 0

    @property
    def seen(self) -> int:
        """The last event that the client has."""
        return self._lost or self.after

    def advance(self, frames: list[bytes]) -> list[bytes]:
        """Of the next frames in the log those that the client gets."""
        self.after = seq_of(frames[-1])
        self.over = self.ended = is_terminal(frames[-1])
        if not self._lost:
            return frames
        for index, frame in enumerate(frames):
            if seq_of(frame) > self._lost or is_restart(frame) or is_terminal(frame):
                self._lost = 0
                return frames[index:]
        return []

    def go_back(self, seq: int) -> None:
        """The log ends before what the client has."""
        self._lost = max(self._lost, self.after)
        self.after = seq
