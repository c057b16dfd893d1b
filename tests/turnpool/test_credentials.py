"""Secrets among the settings: what is set is used, or refused with one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from turnpool.errors import SettingsError
from turnpool.settings import Settings, read_settings

SCRIPTS = Path(sys.executable).parent
SECRETS = ("api_keys", "admin_key", "redis_password", "broker_password")
BLANK = ("", " ", "\n", " \t\n ")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("TURNPOOL_"):
            monkeypatch.delenv(name)


def refusal() -> str:
    """The one line that says what is wrong."""
    with pytest.raises(SettingsError) as raised:
        read_settings()
    assert "\n" not in raised.value.message
    return raised.value.message


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", BLANK)
def test_a_blank_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Whoever set it meant something else than none."""
    monkeypatch.setenv(f"TURNPOOL_{name.upper()}", value)
    assert refusal().startswith(f"TURNPOOL_{name.upper()}: it is set but empty")


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", BLANK)
def test_a_blank_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    """An empty file is a secret that somebody forgot to fill."""
    (tmp_path / f"turnpool_{name}").write_text(value)
    monkeypatch.setenv("TURNPOOL_SECRETS_DIR", str(tmp_path))
    assert refusal().startswith(f"TURNPOOL_{name.upper()}: it is set but empty")


def test_a_blank_variable_is_refused_beside_a_good_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment goes first, so the file would not be used."""
    (tmp_path / "turnpool_api_keys").write_text("ann:key")
    monkeypatch.setenv("TURNPOOL_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("TURNPOOL_API_KEYS", "")
    assert refusal().startswith("TURNPOOL_API_KEYS: ")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (" , ", "has no key"),
        (",", "has no key"),
        (",,\n,", "has no key"),
        ("hush", "entry 1: each must be tenant:key"),
        (":hush", "entry 1: each must be tenant:key"),
        ("ann:", "entry 1: each must be tenant:key"),
        ("ann: ", "entry 1: each must be tenant:key"),
        ("ann:hush,bob:", "entry 2: each must be tenant:key"),
        ("ann:hush,bob", "entry 2: each must be tenant:key"),
        ("an n:hush", "entry 1: each must be tenant:key"),
        ("ann:hush hush", "entry 1: a key must be printable ASCII"),
        ("ann:hush\nbob:hush2", "entry 1: a key must be printable ASCII"),
        ("ann:hüsh", "entry 1: a key must be printable ASCII"),
        ("ann:hush\x00", "entry 1: a key must be printable ASCII"),
        ("ann:hush\u200b", "entry 1: a key must be printable ASCII"),
        ("ann:hush,bob:hush", "entry 2: its key is another tenant's too"),
        ("ann:hush, bob: hush\n", "entry 2: its key is another tenant's too"),
        ("hush1:ann,hush2:ann", "entry 2: its key is another tenant's too"),
    ],
)
def test_wrong_keys_are_refused_and_not_shown(keys: str, says: str) -> None:
    """The message names the entry by its place, and no part of it."""
    with pytest.raises(ValueError, match=says) as raised:
        Settings.model_validate({"api_keys": keys})
    (error,) = raised.value.errors()  # type: ignore[attr-defined]
    assert "hush" not in error["msg"]


@pytest.mark.parametrize(
    ("keys", "tenants"),
    [
        ("ann:k", {"k": "ann"}),
        (" ann : k \n", {"k": "ann"}),
        ("ann:a:b:c", {"a:b:c": "ann"}),
        ("ann:old,ann:new", {"old": "ann", "new": "ann"}),
        ("ann:k,ann:k", {"k": "ann"}),
        ("ann:k,,bob:l,", {"k": "ann", "l": "bob"}),
    ],
)
def test_good_keys_are_taken(keys: str, tenants: dict[str, str]) -> None:
    """Blanks around keys come with files, colons may be in them, and two keys of a tenant are a rotation."""
    assert Settings.model_validate({"api_keys": keys}).tenant_keys == tenants


@pytest.mark.parametrize("name", [*SECRETS, "llm_api_key"])
def test_the_line_end_of_a_file_is_no_part_of_the_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Editors and `echo` add one."""
    (tmp_path / f"turnpool_{name}").write_text("ann:key\r\n")
    monkeypatch.setenv("TURNPOOL_SECRETS_DIR", str(tmp_path))
    assert getattr(read_settings(), name).get_secret_value() == "ann:key"


@pytest.mark.parametrize("value", ["two words", "schlüssel", "a\nb", "a\x07"])
def test_an_admin_key_that_no_header_carries_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Nobody could ever use it."""
    monkeypatch.setenv("TURNPOOL_ADMIN_KEY", value)
    assert refusal().startswith("TURNPOOL_ADMIN_KEY: it must be printable ASCII")


def test_a_tenants_key_is_not_the_admins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tenant could drain every process."""
    monkeypatch.setenv("TURNPOOL_API_KEYS", "ann:k,bob:same")
    monkeypatch.setenv("TURNPOOL_ADMIN_KEY", "same")
    assert refusal().startswith("TURNPOOL_ADMIN_KEY: it is a tenant's key")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "name", "value"),
    [
        ("turnpool-api", "TURNPOOL_API_KEYS", " , "),
        ("turnpool-worker", "TURNPOOL_REDIS_PASSWORD", ""),
        ("turnpool-flower", "TURNPOOL_FLOWER_PASSWORD", "\n"),
        ("turnpool-flower", "TURNPOOL_FLOWER_COOKIE_SECRET", " "),
    ],
)
def test_a_process_with_a_blank_secret_does_not_start(script: str, name: str, value: str) -> None:
    """One line on standard error, and status 2."""
    env = os.environ | {"TURNPOOL_FLOWER_PASSWORD": "pw", name: value}
    done = subprocess.run(
        [SCRIPTS / script], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"turnpool: {name}: ")
    assert done.stderr.count("\n") == 1
