"""Parts of a connection's state."""

import math
from enum import Enum, auto

from uvicorn.protocols.http.flow_control import FlowControl

from turnpool_api.http.refusals import Refusal


class Phase(Enum):
    """Which part of a request is read next."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


# Members of an enum are looked up slowly, and these at each header of each request.
IDLE, HEAD, BODY = Phase


class RefusedError(Exception):
    """The parser has to stop; raised in its callbacks."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class ReadControl(FlowControl):
    """uvicorn's, that keeps reading paused while bytes wait to be parsed."""

    is_held = False

    def resume_reading(self) -> None:
        """As uvicorn's."""
        if not self.is_held:
            super().resume_reading()


class Unread:
    """Bytes that a client does not read, since when."""

    def __init__(self) -> None:
        self._unsent = 0
        self._since = math.inf

    def is_stuck(self, unsent: int, now: float, seconds: float) -> bool:
        """Whether it has read nothing for as long; to be asked again and again while it should read."""
        if unsent < self._unsent or self._since == math.inf:
            self._since = now
        self._unsent = unsent
        return now - self._since > seconds
