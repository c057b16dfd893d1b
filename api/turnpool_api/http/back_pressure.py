"""How much of an answer waits for a client that does not read.

A stream reads its log again once its client takes what it was given; until then the piece is in the
transport's buffer and the kernel's. Thousands of slow clients would fill those with what the log has anyway.
"""

import asyncio
import socket

# Bytes in the transport's buffer above which nothing more is written. Mostly it is empty.
HIGH_WATER = 8 * 1024
# Bytes in the kernel's buffer that are not sent yet. What is under way to a client counts apart, so that a
# distant client is as fast as before. Without this Linux takes up to 4 MB of each stream.
UNSENT = 32 * 1024


def bound_unsent(listening: socket.socket) -> None:
    """Bound what waits in the kernel, for connections accepted here, where the system can (Linux does)."""
    if option := getattr(socket, "TCP_NOTSENT_LOWAT", None):
        listening.setsockopt(socket.IPPROTO_TCP, option, UNSENT)


def bound_buffer(transport: asyncio.WriteTransport) -> None:
    """Bound what waits in the transport."""
    transport.set_write_buffer_limits(high=HIGH_WATER)
