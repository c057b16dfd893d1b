"""An API without keys that other machines can reach."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from turnpool.errors import SettingsError
from turnpool.exposure import check_exposure, is_loopback
from turnpool.settings import Settings

SCRIPTS = Path(sys.executable).parent
LOOPBACK = ("127.0.0.1", "127.3.2.1", "localhost", "::1", "::ffff:127.0.0.1")
REACHABLE = ("0.0.0.0", "::", "", "192.0.2.1", "2001:db8::1", "no-such-host.invalid")  # noqa: S104 - not bound


@pytest.fixture(autouse=True)
def _no_client_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TURNPOOL_API_KEY", raising=False)


@pytest.mark.parametrize("host", LOOPBACK)
def test_on_this_machine_an_api_needs_no_keys(host: str) -> None:
    """Whoever can reach it has an account here."""
    assert is_loopback(host)
    check_exposure(Settings(host=host), host)


@pytest.mark.parametrize("host", REACHABLE)
def test_an_api_for_other_machines_needs_keys(host: str) -> None:
    """Or a setting that says that it is meant so; an admin key alone protects no turn."""
    for settings in (Settings(host=host), Settings.model_validate({"host": host, "admin_key": "k"})):
        with pytest.raises(SettingsError, match="TURNPOOL_API_KEYS: none are set"):
            check_exposure(settings, host)
    check_exposure(Settings.model_validate({"host": host, "api_keys": "ann:k"}), host)
    check_exposure(Settings(host=host, open=True), host)


def test_a_clients_key_is_not_the_apis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A letter is missing, and the API would be open to every page and program of this machine."""
    monkeypatch.setenv("TURNPOOL_API_KEY", "ann:k")
    with pytest.raises(SettingsError, match="TURNPOOL_API_KEYS=tenant:key"):
        check_exposure(Settings(), "127.0.0.1")
    check_exposure(Settings.model_validate({"api_keys": "ann:k"}), "127.0.0.1")
    check_exposure(Settings(open=True), "127.0.0.1")


def clean() -> dict[str, str]:
    """The environment without settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TURNPOOL_")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "env"),
    [
        (["turnpool-api"], {"TURNPOOL_HOST": "0.0.0.0"}),  # noqa: S104 - refused
        (["turnpool-api"], {"TURNPOOL_HOST": "::"}),
        (["turnpool-api"], {"TURNPOOL_API_KEY": "ann:k"}),
        (["turnpool", "up", "--simulated", "--host", "0.0.0.0"], {}),  # noqa: S104 - refused
    ],
)
def test_a_process_that_would_be_open_does_not_start(
    tmp_path: Path, command: list[str], env: dict[str, str]
) -> None:
    """One line on standard error, and status 2."""
    done = subprocess.run(
        [SCRIPTS / command[0], *command[1:]],
        cwd=tmp_path,
        env=clean() | env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "TURNPOOL_API_KEYS" in done.stderr
    assert done.stderr.count("\n") == 1
