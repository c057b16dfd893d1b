"""The main function of `turnpool-api`."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.acceptance.processes import Process, mute_server
from turnpool_api import server
from turnpool_api.server import Server

SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


@SIGNALS
def test_a_signal_before_it_serves_ends_it(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """A process that is told to stop while it starts does not go on as if nothing had been said."""
    for name in ("configure", "tune_garbage_collector", "listen"):
        monkeypatch.setattr(server, name, lambda *_: None)
    monkeypatch.setattr(Server, "run", lambda *_: signal.raise_signal(number))
    monkeypatch.setattr("os._exit", sys.exit)
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(SystemExit) as ended:
            server.serve()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert ended.value.code == 0


@SIGNALS
@pytest.mark.anyio
@pytest.mark.acceptance
async def test_a_signal_while_it_looks_at_redis_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    """Also where the server says nothing: a real process."""
    async with mute_server() as (port, asked):
        env = {"TURNPOOL_REDIS_URL": f"redis://127.0.0.1:{port}/0", "TURNPOOL_PORT": "0"}
        process = Process("turnpool-api", tmp_path / "api.log", env)
        try:
            await asyncio.wait_for(asked.wait(), 40)
            process.signal(number)
            assert await process.exit() == 0
            assert "Traceback" not in process.log.read_text()
        finally:
            process.stop()
