"""A transport that writes once in each loop iteration, and closes so that its last bytes arrive."""

import asyncio
from collections.abc import Callable
from typing import Any

# Bytes held back at most. With more the transport must know, since it tells its protocol to pause.
MAX_CORKED = 4096


def _never() -> bool:
    return False


class Corked:
    """Wraps an asyncio transport.

    An answer's start and its first frames, or its last frames and its end, are then one packet. A write
    to a socket costs as much as all else of an event's way to its client.

    `lingers` is asked at each `close`: if it returns True, only the writing half is closed, and its owner
    closes the rest later. Closing a socket with unread data resets the connection, and the reset can destroy
    an answer that the client has not read yet.
    """

    def __init__(self, transport: asyncio.Transport, lingers: Callable[[], bool] = _never) -> None:
        self._transport = transport
        self._lingers = lingers
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_scheduled = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write after what was written before: at the end of this loop iteration, at once if it is much."""
        if not data:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_CORKED:
            self._flush()
        elif not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush_scheduled)

    def get_write_buffer_size(self) -> int:
        """Bytes that are not written yet, here and below."""
        return self._size + self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close, once all is written."""
        self._flush()
        if not self.is_closing() and self._lingers():
            self._ended = True
            self._transport.write_eof()
        else:
            self._transport.close()

    def forget_owner(self) -> None:
        """Called when the connection is lost: a cycle of references would wait for the collector."""
        self._lingers = _never

    def is_closing(self) -> bool:
        """Whether nothing more will be written."""
        return self._ended or self._transport.is_closing()

    def _flush_scheduled(self) -> None:
        self._is_scheduled = False
        self._flush()

    def _flush(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces and not self._ended and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))
