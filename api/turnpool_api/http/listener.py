"""Takes connections as they come in a burst.

uvloop's own servers accept one connection in each turn of the loop (libuv since 1.45,
https://github.com/libuv/libuv/pull/3696). Where a turn has much to do, and it has while thousands of
streams are fed, a burst of clients would wait for seconds.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from turnpool.errors import SettingsError
from turnpool.logs import get_logger
from turnpool_api.http.back_pressure import bound_unsent
from turnpool_api.http.connections import Connections, Slot
from turnpool_api.http.refusals import TOO_MANY_CONNECTIONS

log = get_logger(__name__)

# Connections accepted in one turn of the loop; between two such turns the streams get theirs, and the first
# of a burst have their turns under way before the last are read.
MAX_ACCEPTED = 16
# Want of descriptors or memory, and seconds until it accepts again after that.
POOR = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
PAUSE = 1.0
# An address that a name has and this machine has not, as that of IPv6 where there is none.
ABSENT = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


class Listener:
    """An asyncio server, as far as uvicorn needs one. Belongs to the loop it is made on."""

    def __init__(
        self,
        protocol: Callable[[Slot], asyncio.Protocol],
        sockets: list[socket.socket],
        connections: Connections,
    ) -> None:
        self.sockets = sockets
        self._protocol = protocol
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[tuple[asyncio.BaseTransport, object]]] = set()
        self._closed = False
        for listening in sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def close(self) -> None:
        """Accept no more; what waits to be accepted is refused, what is not served yet is closed."""
        if self._closed:
            return
        self._closed = True
        for listening in self.sockets:
            self._loop.remove_reader(listening)
            listening.close()

    async def wait_closed(self) -> None:
        """Nothing to wait for: uvicorn closes the connections."""

    def _accept(self, listening: socket.socket) -> None:
        try:
            for _ in range(MAX_ACCEPTED):
                connection, address = listening.accept()
                connection.settimeout(0)
                slot = self._connections.admit(address[0])
                if slot:
                    self._connect(connection, slot)
                else:
                    _refuse(connection)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            pass  # there are no more, or this one has gone
        except OSError as error:
            # Of others only the connection itself is lost.
            if error.errno in POOR:
                self._loop.remove_reader(listening)
                self._loop.call_later(PAUSE, self._accept_again, listening)
            log.warning("cannot_accept", error=str(error))

    def _connect(self, connection: socket.socket, slot: Slot) -> None:
        protocol = partial(self._protocol, slot)
        task = self._loop.create_task(self._loop.connect_accepted_socket(protocol, connection))
        self._connecting.add(task)
        task.add_done_callback(partial(self._connected, slot))

    def _connected(self, slot: Slot, task: "asyncio.Task[tuple[asyncio.BaseTransport, object]]") -> None:
        self._connecting.discard(task)
        if task.cancelled() or task.exception():
            slot.release()
        if self._closed and not task.cancelled() and not task.exception():
            task.result()[0].close()

    def _accept_again(self, listening: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(listening, self._accept, listening)


def _refuse(connection: socket.socket) -> None:
    """Say why and close, without a protocol: refusing must cost less than serving."""
    with connection, contextlib.suppress(OSError):
        connection.send(TOO_MANY_CONNECTIONS.response())


def listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Sockets that listen at all addresses of the host that the machine has. Raises SettingsError."""
    sockets: list[socket.socket] = []
    with contextlib.ExitStack() as opened:
        failed: OSError | None = None
        for family, address in _addresses(host, port):
            try:
                listening = socket.create_server(address, family=family, backlog=backlog)
            except OSError as error:
                failed = error
                if error.errno in ABSENT:
                    continue
                break
            listening.settimeout(0)
            bound_unsent(listening)
            sockets.append(opened.enter_context(listening))
        if failed and (failed.errno not in ABSENT or not sockets):
            said = f"TURNPOOL_HOST, TURNPOOL_PORT: cannot listen on {host}:{port}: {failed.strerror}"
            raise SettingsError(said)
        opened.pop_all()
    return sockets


def _addresses(host: str, port: int) -> list[Any]:
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        said = f"TURNPOOL_HOST, TURNPOOL_PORT: cannot listen on {host}:{port}: {error.strerror}"
        raise SettingsError(said) from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
