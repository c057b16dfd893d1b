"""Names that are no setting: misspelt secrets are refused, other variables logged."""

import os
from pathlib import Path

import pytest

from turnpool.environment import unknown_variables
from turnpool.errors import SettingsError
from turnpool.settings import Settings, load, read_settings
from turnpool_workers.flower import FlowerSettings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("TURNPOOL_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("turnpool_api_key", "turnpool_api_keys"),
        ("turnpool_apikeys", "turnpool_api_keys"),
        ("TURNPOOL_API_KEY", "turnpool_api_keys"),
        ("turnpool_api-keys", "turnpool_api_keys"),
        ("turnpool-api-keys", "turnpool_api_keys"),
        ("turnpool_api_keys.txt", "turnpool_api_keys"),
        ("turnpool.api.keys", "turnpool_api_keys"),
        ("turnpool_admin_keys", "turnpool_admin_key"),
        ("turnpool_redis_pasword", "turnpool_redis_password"),
        ("turnpool_concurency", "turnpool_concurrency"),
        ("turnpool_xyzzy", ""),
    ],
)
def test_a_secret_file_of_no_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, nearest: str
) -> None:
    """The line names the file and the nearest name there is."""
    (tmp_path / name).write_text("ann:hush")
    monkeypatch.setenv("TURNPOOL_SECRETS_DIR", str(tmp_path))
    with pytest.raises(SettingsError) as raised:
        read_settings()
    assert raised.value.message.startswith(f"TURNPOOL_SECRETS_DIR: {name} is no setting")
    assert raised.value.message.endswith(f"; the nearest is {nearest}" if nearest else "is no setting")
    assert "hush" not in raised.value.message


def test_other_files_are_nobodys_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files of others, Flower's, and the links that Kubernetes makes."""
    data = tmp_path / "..2026_11_30"
    data.mkdir()
    (data / "turnpool_api_keys").write_text("ann:key")
    (tmp_path / "..data").symlink_to(data.name)
    (tmp_path / "turnpool_api_keys").symlink_to("..data/turnpool_api_keys")
    (tmp_path / "turnpool_flower_password").write_text("pw")
    (tmp_path / "grafana_admin_password").write_text("pw")
    monkeypatch.setenv("TURNPOOL_SECRETS_DIR", str(tmp_path))
    assert read_settings().tenant_keys == {"key": "ann"}
    assert load(FlowerSettings).password


def test_flower_checks_its_own_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A misspelt one is named, and the process does not start."""
    (tmp_path / "turnpool_flower_passwort").write_text("pw")
    monkeypatch.setenv("TURNPOOL_SECRETS_DIR", str(tmp_path))
    with pytest.raises(SystemExit):
        load(FlowerSettings)
    assert "turnpool_flower_passwort is no setting; the nearest is turnpool_flower_password" in (
        capsys.readouterr().err
    )


def unreadable(file: Path) -> None:
    """A file that the process may not read."""
    file.write_text("ann:key")
    file.chmod(0)


def outside(file: Path) -> None:
    """A link out of the folder, which pydantic-settings skips with a warning."""
    (file.parent.parent / "elsewhere").write_text("ann:key")
    file.symlink_to(file.parent.parent / "elsewhere")


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        outside,
        lambda file: file.symlink_to("gone"),
        lambda file: file.symlink_to(file.name),
        lambda file: file.write_bytes(b"ann:\xff"),
        pytest.param(
            unreadable, marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
        ),
    ],
)
def test_a_secret_file_that_cannot_be_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make: object
) -> None:
    """Passing over it would leave the API open."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    make(folder / "turnpool_api_keys")  # type: ignore[operator]
    monkeypatch.setenv("TURNPOOL_SECRETS_DIR", str(folder))
    with pytest.raises(SettingsError, match=r"TURNPOOL_SECRETS_DIR: turnpool_api_keys ") as raised:
        read_settings()
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("TURNPOOL_APIKEYS", "TURNPOOL_API_KEYS"),
        ("TURNPOOL_API_KEYES", "TURNPOOL_API_KEYS"),
        ("TURNPOOL_API_KYES", "TURNPOOL_API_KEYS"),
        ("TURNPOOL_API_KEYS_FILE", "TURNPOOL_API_KEYS"),
        ("turnpool_apikey", "TURNPOOL_API_KEYS"),
        ("TURNPOOL_ADMINKEY", "TURNPOOL_ADMIN_KEY"),
        ("TURNPOOL_SECRET_DIR", "TURNPOOL_SECRETS_DIR"),
        ("TURNPOOL_REDIS_PASSWD", "TURNPOOL_REDIS_PASSWORD"),
        ("TURNPOOL_FLOWER_PASSWROD", "TURNPOOL_FLOWER_PASSWORD"),
    ],
)
def test_a_variable_that_may_be_a_secret_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
) -> None:
    """The line names it and the nearest name there is, never its value."""
    monkeypatch.setenv(name, "ann:hush")
    kind = FlowerSettings if "FLOWER" in name else Settings
    with pytest.raises(SystemExit) as raised:
        load(kind)
    assert raised.value.code == 2
    error = raised.value.__context__
    assert isinstance(error, SettingsError)
    assert error.message == f"{name.upper()}: there is no such setting; the nearest is {nearest}"


def test_other_unknown_variables_are_named_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes and compose make some, so they stop nothing; the client's own are known."""
    for name in ("URL", "API_KEY", "FLOWER_USER", "LOG_LEVEL", "CONCURENCY", "API_SERVICE_HOST"):
        monkeypatch.setenv(f"TURNPOOL_{name}", "INFO")
    read_settings()
    assert unknown_variables(Settings.model_fields) == [
        "TURNPOOL_API_SERVICE_HOST",
        "TURNPOOL_CONCURENCY; the nearest is TURNPOOL_CONCURRENCY",
    ]
