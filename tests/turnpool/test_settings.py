"""Settings from the environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from turnpool.errors import SettingsError, UnknownAgentError
from turnpool.redis.urls import parse_url
from turnpool.settings import Settings, load_settings, read_settings

WORKER = str(Path(sys.executable).with_name("turnpool-worker"))

WRONG = [
    ("REDIS_URL", "http://localhost", "not one of redis, rediss, unix, sentinel"),
    ("REDIS_URL", "redis://", "names no host"),
    ("REDIS_URL", "redis://h:port/0", "port is no number"),
    ("REDIS_URL", "redis://h:99999/0", "port is no number"),
    ("REDIS_URL", "sentinel://h:1/0", "master"),
    ("REDIS_URL", "sentinel://h:port/0?master=m", "port"),
    ("REDIS_URL", "sentinel://h:1/zero?master=m", "database is a number"),
    ("REDIS_URL", "redis+cluster://h:port", "port"),
    ("REDIS_URL", "redis+cluster://h:1/2", "no databases"),
    ("BROKER_URL", "amqp://h", "not one of"),
    ("BROKER_URL", "redis+cluster://h:1", "Celery cannot use a cluster"),
    ("AGENTS", "chat", "'chat' is not name=module:attribute"),
    ("AGENTS", "chat=module", "'chat=module' is not"),
    ("AGENTS", " , ", "at least one agent"),
    ("QUEUES", "turns,a b", "'a b' is not 1 to 64 letters"),
    ("CONCURRENCY", "many", "valid integer"),
    ("CONCURRENCY", "0", "greater than or equal to 1"),
    ("LEASE_SECONDS", "0.1", "greater than or equal to 0.5"),
    ("LEASE_SECONDS", "nan", "LEASE_SECONDS"),
    ("MAX_ATTEMPTS", "0", "greater than or equal to 1"),
    ("DEADLINE_SECONDS", "-1", "greater than 0"),
    ("DEADLINE_SECONDS", "86401", "less than or equal to 86400"),
    ("SESSION_TTL", "0", "greater than or equal to 1"),
    ("LOG_TTL", "1.5", "valid integer"),
    ("MAX_QUEUED", "0", "greater than or equal to 1"),
    ("MAX_SESSION_QUEUED", "x", "valid integer"),
    ("MAX_INPUT_BYTES", "0", "greater than or equal to 1"),
    ("FLUSH_MS", "0", "greater than or equal to 1"),
    ("DRAIN_SECONDS", "-1", "greater than or equal to 0"),
    ("PROVIDER_RETRIES", "21", "less than or equal to 20"),
    ("PORT", "65536", "less than or equal to 65535"),
    ("METRICS_PORT", "-1", "greater than or equal to 0"),
    ("API_KEYS", "just-a-key", "each must be tenant:key"),
    ("API_KEYS", "te nant:key", "each must be tenant:key"),
    *(
        ("LLM_BASE_URL", url, "no http(s)://host[:port]/path")
        for url in (
            "",
            "api.openai.com/v1",
            "ftp://h/v1",
            "https:///v1",
            "http://",
            "http://:80/v1",
            "http://h:x/v1",
            "http://h:99999/v1",
            "http://[h/v1",
            "http://h /v1",
            "http://h\n/v1",
        )
    ),
    ("LLM_API_KEY", "one\ntwo", "no HTTP header can carry"),
    ("LLM_API_KEY", "schlüssel", "no HTTP header can carry"),
    ("LOG_LEVEL", "loud", "match pattern"),
]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("TURNPOOL_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(("name", "value", "says"), WRONG)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    """Whoever set it finds out which variable it is and what is wrong with it."""
    monkeypatch.setenv(f"TURNPOOL_{name}", value)
    with pytest.raises(SettingsError) as raised:
        read_settings()
    assert raised.value.message.startswith(f"TURNPOOL_{name}: ")
    assert says in raised.value.message
    assert "\n" not in raised.value.message


def test_a_wrong_value_ends_a_process_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line goes to standard error."""
    monkeypatch.setenv("TURNPOOL_PORT", "x")
    with pytest.raises(SystemExit) as raised:
        load_settings()
    assert raised.value.code == 2
    assert capsys.readouterr().err.startswith("turnpool: TURNPOOL_PORT: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONCURRENCY", "0"),
        ("LLM_BASE_URL", "h/v1"),
        ("AGENTS", "x=no_such_module:agent"),
        ("AGENTS", "x=os:sep"),
    ],
)
def test_a_worker_with_a_wrong_value_does_not_start(name: str, value: str) -> None:
    """A real process prints one line, no traceback, and exits 2."""
    env = os.environ | {f"TURNPOOL_{name}": value, "TURNPOOL_REDIS_URL": "redis://127.0.0.1:1/0"}
    result = subprocess.run([WORKER], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"turnpool: TURNPOOL_{name}: ")
    assert (result.stderr.count("\n"), result.stdout) == (1, "")


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """No password or key is in the representation, which ends up in logs and tracebacks."""
    for name, value in {
        "REDIS_URL": "redis://:hush1@h:1/0",
        "BROKER_URL": "redis://:hush2@h:1/0",
        "API_KEYS": "tenant:hush3",
        "ADMIN_KEY": "hush4",
        "LLM_API_KEY": "hush5",
    }.items():
        monkeypatch.setenv(f"TURNPOOL_{name}", value)
    settings = read_settings()
    assert "hush" not in repr(settings) + str(settings)
    assert settings.tenant_keys == {"hush3": "tenant"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "hush@host:6379"),
        ("REDIS_URL", "sentinel://:hush@h:1/0"),
        ("BROKER_URL", "redis://:hush@:1/0"),
        ("REDIS_URL", "redis://:hush"),
        ("REDIS_URL", "sentinel://:hush/0?master=m"),
        ("REDIS_URL", "hush:6379"),
        ("REDIS_URL", "redis://u:hush@h:x/0"),
        ("API_KEYS", "hush"),
        ("API_KEYS", "a:hush,hush"),
        ("LLM_BASE_URL", "https://u:hush@h:x/v1"),
        ("LLM_API_KEY", "hush\nhush"),
    ],
)
def test_an_error_does_not_show_secrets(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A mistyped secret is not printed."""
    monkeypatch.setenv(f"TURNPOOL_{name}", value)
    with pytest.raises(SettingsError) as raised:
        read_settings()
    assert "hush" not in raised.value.message


@pytest.mark.parametrize(
    ("given", "key"), [(" k-1 \n", "k-1"), ("k-1", "k-1"), ("", "none"), (" \n", "none")]
)
def test_the_models_endpoint_is_taken_without_blanks(
    monkeypatch: pytest.MonkeyPatch, given: str, key: str
) -> None:
    """They come with files and copied lines. Endpoints on one's own machine need no key."""
    monkeypatch.setenv("TURNPOOL_LLM_BASE_URL", " https://[::1]:8080/v1\n")
    monkeypatch.setenv("TURNPOOL_LLM_API_KEY", given)
    settings = read_settings()
    assert settings.llm_base_url == "https://[::1]:8080/v1"
    assert settings.llm_api_key.get_secret_value() == key


def test_agents_have_queues_and_the_first_is_the_default() -> None:
    """A worker serves the queues of its agents, each once, unless told otherwise."""
    settings = Settings(agents="a=m:f, b=m.n:g@slow ,c=m:h@slow")
    assert [(spec.name, spec.target, spec.queue) for spec in settings.agent_specs.values()] == [
        ("a", "m:f", "turns"),
        ("b", "m.n:g", "slow"),
        ("c", "m:h", "slow"),
    ]
    assert settings.agent_spec(None).name == "a"
    assert settings.agent_spec("b").name == "b"
    assert settings.queue_names == ("turns", "slow")
    assert Settings(agents="a=m:f", queues="x, y,x").queue_names == ("x", "y")


def test_an_unknown_agent_is_named_with_those_there_are() -> None:
    """The message helps whoever mistyped."""
    with pytest.raises(UnknownAgentError, match="'chat2'; there are: chat, mine"):
        Settings(agents="chat=m:f,mine=m:g").agent_spec("chat2")


def test_the_broker_is_the_store_unless_told_otherwise() -> None:
    """One server is enough."""
    assert Settings(redis_url="redis://a:1/0").broker == parse_url("redis://a:1/0")
    assert Settings(redis_url="redis://a:1/0", broker_url="redis://b:1/0").broker == parse_url(
        "redis://b:1/0"
    )


def test_tenants_may_have_several_keys() -> None:
    """Keys are rotated by having two for a while; a key may hold colons."""
    settings = Settings.model_validate({"api_keys": "a:1:x, a:2 ,b:3"})
    assert settings.tenant_keys == {"1:x": "a", "2": "a", "3": "b"}


def test_secrets_come_from_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the environment says goes first."""
    (tmp_path / "turnpool_redis_password").write_text("p/w\n")
    (tmp_path / "turnpool_llm_model").write_text("from-a-file\n")
    monkeypatch.setenv("TURNPOOL_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("TURNPOOL_LLM_MODEL", "from-the-environment")
    settings = read_settings()
    assert settings.store == settings.broker == parse_url("redis://:p%2Fw@127.0.0.1:6379/0")
    assert settings.llm_model == "from-the-environment"
    assert "p/w" not in repr(settings)


def test_a_folder_of_secrets_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Or the process would start without them."""
    monkeypatch.setenv("TURNPOOL_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"TURNPOOL_SECRETS_DIR: .*none is no folder"):
        read_settings()


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://h/0", "redis://:p%40w@h/0"),
        ("rediss://user@h:1/0", "rediss://user:p%40w@h:1/0"),
        ("redis://:own@h/0", "redis://:own@h/0"),
        ("sentinel://a:1,b:2/0?master=m", "sentinel://:p%40w@a:1,b:2/0?master=m"),
    ],
)
def test_a_password_goes_into_a_url_without_one(
    monkeypatch: pytest.MonkeyPatch, url: str, whole: str
) -> None:
    """Of the store and of the broker, each its own."""
    monkeypatch.setenv("TURNPOOL_REDIS_PASSWORD", "p@w")
    monkeypatch.setenv("TURNPOOL_REDIS_URL", url)
    assert read_settings().store == parse_url(whole)
    monkeypatch.setenv("TURNPOOL_BROKER_URL", "redis://broker/0")
    monkeypatch.setenv("TURNPOOL_BROKER_PASSWORD", "other")
    assert read_settings().broker == parse_url("redis://:other@broker/0")


def test_a_worker_has_the_agents_of_its_queues() -> None:
    """Code of the others need not be installed where it runs."""
    agents = "a=x:a,b=y:b@gpu,c=x:c"
    assert [spec.name for spec in Settings(agents=agents).served_agents] == ["a", "b", "c"]
    assert [spec.name for spec in Settings(agents=agents, queues="gpu").served_agents] == ["b"]
    with pytest.raises(SettingsError, match="no agent has a queue of cpu, tpu"):
        _ = Settings(agents=agents, queues="cpu,tpu").served_agents


def test_a_cluster_needs_a_broker_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the store would be the broker; that is told at start."""
    monkeypatch.setenv("TURNPOOL_REDIS_URL", "redis+cluster://h:1")
    with pytest.raises(SettingsError, match="TURNPOOL_BROKER_URL: Celery cannot use a cluster"):
        read_settings()
    monkeypatch.setenv("TURNPOOL_BROKER_URL", "redis://h")
    monkeypatch.setenv("TURNPOOL_REDIS_PASSWORD", "p@w")
    assert read_settings().store == parse_url("redis+cluster://:p%40w@h:1")
