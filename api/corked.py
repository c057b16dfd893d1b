"""Writes of one turn of the event loop in one system call."""

import asyncio
from typing import Any


class Corked:
    """A transport that writes once in each turn of the loop.

    An answer's start and its first frames, or its last frames and its end, are then one packet. A write
    to a socket costs as much as all else of an event's way to its client.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write soon, behind what was written before."""
        self._pieces.append(data)
        if len(self._pieces) == 1:
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Close, once all is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))
