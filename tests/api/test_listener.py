"""Where connections come in, and how they are written to."""

import asyncio
import errno
import socket
from pathlib import Path

import pytest
import uvloop

from tests.acceptance.processes import Process
from tests.conftest import wait_until
from turnpool.errors import SettingsError
from turnpool.settings import Settings
from turnpool_api.http.connections import Connections
from turnpool_api.http.listener import PAUSE, Listener, listen
from turnpool_api.http.transport import Corked


class Kept(asyncio.Protocol):
    """Keeps its transports and when each came: in which turn of the loop."""

    def __init__(self, came: list[asyncio.BaseTransport]) -> None:
        self._came = came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Kept."""
        self._came.append(transport)


def test_a_burst_is_accepted_in_few_turns_of_the_loop() -> None:
    """On uvloop itself each connection would take a turn."""

    async def turns(connections: int) -> int:
        came: list[asyncio.BaseTransport] = []
        sockets = listen("127.0.0.1", 0, connections)
        listener = Listener(lambda _: Kept(came), sockets, Connections(Settings()))
        clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(connections)]
        count = 0
        while len(came) < connections:
            await asyncio.sleep(0)
            count += 1
        for transport in came:
            transport.close()
        for client in clients:
            client.close()
        listener.close()
        return count

    assert uvloop.run(turns(50)) < 10


def test_when_the_system_refuses_it_accepts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Want of descriptors passes; until then it does not spin."""

    async def run() -> None:
        came: list[asyncio.BaseTransport] = []
        sockets = listen("127.0.0.1", 0, 10)
        monkeypatch.setattr("turnpool_api.http.listener.PAUSE", PAUSE / 10)
        refusals = 0

        class Poor(socket.socket):
            def accept(self) -> tuple[socket.socket, object]:
                nonlocal refusals
                refusals += 1
                if refusals <= 2:
                    raise OSError(errno.EMFILE, "Too many open files")
                return super().accept()

        poor = Poor(fileno=sockets[0].detach())
        listener = Listener(lambda _: Kept(came), [poor], Connections(Settings()))
        with socket.create_connection(poor.getsockname()):

            async def has_come() -> bool:
                return bool(came)

            await wait_until(has_come, 5)
            came[0].close()
        # Twice refused, once accepted, once that there is no more.
        assert refusals == 4
        listener.close()

    uvloop.run(run())


@pytest.mark.acceptance
@pytest.mark.anyio
async def test_a_port_in_use_is_told(tmp_path: Path, redis_url: str) -> None:
    """One line, and status 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = {"TURNPOOL_REDIS_URL": redis_url, "TURNPOOL_PORT": str(port)}
        process = Process("turnpool-api", tmp_path / "api.log", env)
        try:
            assert await process.exit() == 2
        finally:
            process.stop()
    said = (
        f"turnpool: TURNPOOL_HOST, TURNPOOL_PORT: cannot listen on 127.0.0.1:{port}: Address already in use"
    )
    assert process.log.read_text().splitlines()[-1].startswith(said)


def test_an_address_that_the_machine_has_not_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As IPv6's of localhost where there is none; but one there must be."""
    here = (socket.AF_INET, ("127.0.0.1", 0))
    # Of documentation, so nobody's: RFC 5737.
    absent = (socket.AF_INET, ("192.0.2.1", 0))
    monkeypatch.setattr("turnpool_api.http.listener._addresses", lambda *_: [absent, here])
    (listening,) = listen("both", 0, 1)
    assert listening.getsockname()[0] == "127.0.0.1"
    listening.close()
    monkeypatch.setattr("turnpool_api.http.listener._addresses", lambda *_: [absent])
    with pytest.raises(SettingsError, match="cannot listen on absent"):
        listen("absent", 0, 1)


def test_a_connection_that_comes_as_it_closes_is_closed() -> None:
    """Nobody else would: the server has counted those it has."""

    async def run() -> bytes:
        sockets = listen("127.0.0.1", 0, 10)
        listener = Listener(lambda _: Kept([]), sockets, Connections(Settings()))
        reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
        # ASYNC110: no event tells of it.
        while not listener._connecting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        listener.close()
        rest = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return rest

    assert uvloop.run(run()) == b""


class Recorded:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        """One system call."""
        assert not self.closed
        self.written.append(data)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def close(self) -> None:
        """No more."""
        self.closed = True


async def _corked() -> tuple[Corked, Recorded]:
    under = Recorded()
    return Corked(under), under  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_writes_of_one_turn_of_the_loop_are_one() -> None:
    """In their order; those of the next are another."""
    corked, under = await _corked()
    corked.write(b"a")
    corked.write(b"b")
    assert under.written == []
    await asyncio.sleep(0)
    assert under.written == [b"ab"]
    corked.write(b"c")
    await asyncio.sleep(0)
    assert under.written == [b"ab", b"c"]


@pytest.mark.anyio
async def test_what_was_written_goes_before_the_end() -> None:
    """A transport that is closed has written all; one that was lost gets no more."""
    corked, under = await _corked()
    corked.write(b"last")
    corked.close()
    await asyncio.sleep(0)
    assert (under.written, under.closed) == ([b"last"], True)
    lost, under = await _corked()
    lost.write(b"never")
    under.close()
    await asyncio.sleep(0)
    assert under.written == []
    assert lost.is_closing()
