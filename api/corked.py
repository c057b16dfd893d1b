"""Writes of one loop iteration in one system call."""

import asyncio
from typing import Any

# Bytes held back at most. With more the transport must know, since it tells its protocol to pause.
MAX_CORKED = 4096


class Corked:
    """A transport that writes once in each loop iteration.

    An answer's start and its first frames, or its last frames and its end, are then one packet. A write
    to a socket costs as much as all else of an event's way to its client.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_scheduled = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write behind what was written before: soon, or at once if it is much."""
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
        self._transport.close()

    def _flush_scheduled(self) -> None:
        self._is_scheduled = False
        self._flush()

    def _flush(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))
