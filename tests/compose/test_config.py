"""compose.yaml, as the real Compose resolves it."""

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.compose.tools import REPO, compose
from turnpool.settings import Settings

OWN = ("api", "worker", "flower")
ALL = ("--profile", "local", "--profile", "monitoring")
Config = dict[str, Any]


@pytest.fixture(scope="module")
def config() -> Config:
    """All services with their profiles."""
    resolved: Config = json.loads(compose(*ALL, "config", "--format", "json"))
    return resolved


@pytest.fixture(scope="module")
def services(config: Config) -> dict[str, Config]:
    """The services by name."""
    found: dict[str, Config] = config["services"]
    assert set(found) == {"redis", *OWN, "model", "prometheus", "grafana"}
    return found


def seconds(text: str) -> int:
    """Seconds of a duration as Compose writes it, 2m5s."""
    match = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    assert match, text
    return int(match[1] or 0) * 60 + int(match[2] or 0)


@pytest.mark.parametrize("profiles", [(), ALL[:2], ALL[2:], ALL], ids=["none", "local", "monitoring", "both"])
def test_every_profile_is_valid(profiles: tuple[str, ...]) -> None:
    """Compose takes the file whatever profiles are on."""
    compose(*profiles, "config", "--quiet")


def test_without_a_profile_only_the_pool_is_started() -> None:
    """Model and monitoring are asked for."""
    assert set(compose("config", "--services").split()) == {"redis", *OWN}


def test_a_worker_is_killed_no_sooner_than_it_has_drained(services: dict[str, Config]) -> None:
    """The grace time is the drain's and ten seconds more, of the API too."""
    drain = int(services["worker"]["environment"]["TURNPOOL_DRAIN_SECONDS"])
    assert seconds(services["worker"]["stop_grace_period"]) >= drain + 10
    drain = int(services["api"]["environment"]["TURNPOOL_API_DRAIN_SECONDS"])
    assert drain == Settings.model_fields["api_drain_seconds"].default
    assert seconds(services["api"]["stop_grace_period"]) > drain + 10
    assert all("stop_grace_period" in service for service in services.values())


def test_every_container_is_confined(services: dict[str, Config]) -> None:
    """Read-only, without capabilities and new privileges, within limits, restarted, its log bounded."""
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert service["logging"]["driver"] == "local", name
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert "privileged" not in service, name


def test_every_container_has_a_health_check_in_exec_form(services: dict[str, Config]) -> None:
    """So that no shell of the engine's choice is needed, and what depends on it can wait."""
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
    for name in OWN:
        assert services[name]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_passwords_and_keys_come_from_files_only(config: Config, services: dict[str, Config]) -> None:
    """No environment and no command holds one, not even a default."""
    secret = re.compile(r"PASSWORD|API_KEY|ADMIN_KEY|COOKIE_SECRET|TOKEN$")
    for name, service in services.items():
        environment = service.get("environment") or {}
        held = [key for key in environment if secret.search(key) and not key.endswith("__FILE")]
        assert not held, name
        assert not any(":" in value.partition("@")[0] for value in environment.values() if "@" in value), name
    assert all(set(secret) == {"name", "file"} for secret in config["secrets"].values())
    assert "/run/secrets/" in str(services["redis"]["entrypoint"])
    for name in OWN:
        assert services[name]["environment"]["TURNPOOL_SECRETS_DIR"] == "/run/secrets"


@pytest.mark.parametrize(
    ("service", "secrets"),
    [
        ("redis", {"turnpool_redis_password"}),
        ("api", {"turnpool_redis_password", "turnpool_api_keys", "turnpool_admin_key"}),
        ("worker", {"turnpool_redis_password", "turnpool_llm_api_key"}),
        (
            "flower",
            {"turnpool_redis_password", "turnpool_flower_password", "turnpool_flower_cookie_secret"},
        ),
        ("model", set()),
        ("prometheus", set()),
        ("grafana", {"grafana_admin_password"}),
    ],
)
def test_a_container_gets_no_secret_that_it_does_not_need(
    services: dict[str, Config], service: str, secrets: set[str]
) -> None:
    """Each its own."""
    assert {secret["source"] for secret in services[service].get("secrets", [])} == secrets


def test_redis_keeps_what_was_accepted(services: dict[str, Config]) -> None:
    """It writes each change down, evicts nothing, and its limit leaves room for a rewrite."""
    lines = services["redis"]["entrypoint"][-1].splitlines()
    assert {"appendonly yes", "maxmemory-policy noeviction", "dir /data"} <= {line.strip() for line in lines}
    assert any(line.startswith("requirepass ") for line in lines)
    maximum = next(int(line.split()[1].removesuffix("mb")) for line in lines if line.startswith("maxmemory "))
    assert int(services["redis"]["deploy"]["resources"]["limits"]["memory"]) >= 2 * maximum * 2**20
    assert [volume["target"] for volume in services["redis"]["volumes"]] == ["/data"]


def test_redis_is_reached_by_the_pool_only(config: Config, services: dict[str, Config]) -> None:
    """Its network has no way out, it has no other, and no port of the machine leads to it."""
    assert config["networks"]["store"]["internal"] is True
    assert set(services["redis"]["networks"]) == {"store"}
    assert "ports" not in services["redis"]
    assert {name for name, service in services.items() if "store" in service["networks"]} == {"redis", *OWN}


def test_ports_are_open_to_this_machine_only(services: dict[str, Config]) -> None:
    """Until someone chooses another address."""
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_workers_can_be_scaled(services: dict[str, Config]) -> None:
    """No name and no port that two of them would fight for."""
    assert not {"container_name", "ports"} & set(services["worker"])
    assert "container_name" not in str(services)


def test_own_processes_run_in_exec_form_from_one_image(services: dict[str, Config]) -> None:
    """A console script each, no shell before it."""
    scripts = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["scripts"]
    for name in OWN:
        assert services[name]["command"] == [f"turnpool-{name}"]
        assert f"turnpool-{name}" in scripts
        assert "entrypoint" not in services[name] or services[name]["entrypoint"] is None
    assert len({services[name]["image"] for name in OWN}) == 1


def test_images_are_pinned(services: dict[str, Config]) -> None:
    """To a full version, our own to this one."""
    version = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"]
    for name, service in services.items():
        image, _, tag = service["image"].partition(":")
        assert re.match(r"v?\d+\.\d+\.\d+", tag), name
        assert not image.startswith("turnpool") or tag == version, name


def test_mounted_files_are_there(services: dict[str, Config]) -> None:
    """The chart's dashboard and rules among them: there is one copy of each."""
    sources = {
        volume["source"]
        for service in services.values()
        for volume in service.get("volumes", [])
        if volume["type"] == "bind"
    }
    folder = REPO / "helm" / "turnpool" / "files"
    assert {str(folder / "dashboard.json"), str(folder / "rules.yaml")} <= sources
    assert not [source for source in sources if not (REPO / source).exists()]


def test_prometheus_gives_every_target_its_pool() -> None:
    """What `up` has from here is the default of the processes, whose own label wins."""
    jobs = yaml.safe_load((REPO / "compose" / "prometheus.yml").read_text())["scrape_configs"]
    for job in jobs:
        labels = {each["target_label"]: each["replacement"] for each in job["relabel_configs"]}
        assert labels["pool"] == Settings.model_fields["namespace"].default
        assert job["honor_labels"] is True


def test_prometheus_asks_every_process_on_its_port(services: dict[str, Config]) -> None:
    """By the names that stand for all containers of a service."""
    text = (REPO / "compose" / "prometheus.yml").read_text()
    asked = dict(re.findall(r"names: \[(\w+)\]\n +type: A\n +port: (\d+)", text))
    environment = {name: services[name]["environment"] for name in OWN}
    assert asked == {
        "api": environment["api"]["TURNPOOL_PORT"],
        "worker": environment["worker"]["TURNPOOL_METRICS_PORT"],
        "flower": environment["flower"]["TURNPOOL_FLOWER_PORT"],
    }
    for name, port in asked.items():
        assert port in services[name]["healthcheck"]["test"]


@pytest.mark.parametrize(
    ("field", "value", "readers"),
    [
        ("durability", "aof", {"api", "worker"}),
        ("namespace", "staging", {"api", "worker", "flower"}),
        ("chat_continue", "never", {"worker"}),
        ("stall_seconds", "7", {"worker"}),
    ],
)
def test_a_setting_of_the_environment_reaches_who_reads_it(field: str, value: str, readers: set[str]) -> None:
    """Left alone it is what it is without Compose."""
    name = f"TURNPOOL_{field.upper()}"
    default = str(Settings.model_fields[field].default)
    for variables, expected in (({}, default), ({name: value}, value)):
        services = json.loads(compose("config", "--format", "json", **variables))["services"]
        assert {services[reader]["environment"].get(name) for reader in readers} == {expected}


def test_the_example_environment_names_only_what_is_read() -> None:
    """A variable that nothing reads would be set in vain."""
    text = (REPO / "compose" / "example.env").read_text()
    names = set(re.findall(r"^#?(\w+)=", text, re.MULTILINE)) - {"COMPOSE_PROFILES"}
    read = set(re.findall(r"\$\{(\w+)", (REPO / "compose" / "compose.yaml").read_text()))
    assert names
    assert names <= read
