"""What `turnpool up` decides to start."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from turnpool.cli import parts
from turnpool.cli.parts import Options, PortError, check_ports, make_plan
from turnpool.local import model


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Return what stands if a person chooses nothing."""
    return Options(
        host="127.0.0.1",
        port=8000,
        flower_port=5555,
        metrics_port=9808,
        valkey_port=7379,
        model_port=7380,
        data=tmp_path,
        simulated=False,
    )


@pytest.fixture(autouse=True)
def _model_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "missing_part", lambda: None)


def names(options: Options, **env: str) -> list[str]:
    """Name the processes of a plan."""
    return [part.name for part in make_plan(options, env).parts]


def test_everything_is_started_by_default(options: Options) -> None:
    """Valkey comes first and the children are told of Valkey and model."""
    assert names(options) == ["valkey", "model", "api", "worker", "flower"]
    env = make_plan(options, {}).env
    assert env["TURNPOOL_REDIS_URL"] == "redis://127.0.0.1:7379/0"
    assert env["TURNPOOL_LLM_BASE_URL"] == "http://127.0.0.1:7380/v1"
    assert "TURNPOOL_AGENTS" not in env


def test_a_redis_of_ones_own_is_used(options: Options) -> None:
    """With TURNPOOL_REDIS_URL no Valkey is started."""
    url = "redis://elsewhere:6379/3"
    assert names(options, TURNPOOL_REDIS_URL=url) == ["model", "api", "worker", "flower"]
    assert make_plan(options, {"TURNPOOL_REDIS_URL": url}).env["TURNPOOL_REDIS_URL"] == url


def test_a_model_of_ones_own_is_used(options: Options) -> None:
    """With TURNPOOL_LLM_BASE_URL no model is started and its name is left alone."""
    env = {"TURNPOOL_LLM_BASE_URL": "http://elsewhere/v1", "TURNPOOL_LLM_MODEL": "big"}
    plan = make_plan(options, env)
    assert "model" not in [part.name for part in plan.parts]
    assert plan.env["TURNPOOL_LLM_MODEL"] == "big"
    assert plan.model == "big at http://elsewhere/v1"
    assert "TURNPOOL_AGENTS" not in plan.env


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TURNPOOL_AGENTS": "shout=shout:agent"}, "your agents have their own"),
        (
            {"TURNPOOL_AGENTS": "talk=turnpool_workers.agents.chat:agent"},
            "gpt-5-mini at https://api.openai.com/v1",
        ),
        ({"TURNPOOL_LLM_BASE_URL": "http://elsewhere/v1"}, "gpt-5-mini at http://elsewhere/v1"),
        (
            {"TURNPOOL_AGENTS": "shout=shout:agent", "TURNPOOL_LLM_BASE_URL": "http://elsewhere/v1"},
            "your agents have their own",
        ),
    ],
)
def test_the_model_that_is_named_is_the_one_that_is_asked(
    options: Options, env: dict[str, str], said: str
) -> None:
    """What is not set is the settings' default; agents of ones own may ask any, or none."""
    assert make_plan(options, env).model == said


def test_without_a_model_answers_are_simulated_and_it_says_so(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default agent becomes the simulated one."""
    monkeypatch.setattr(model, "missing_part", lambda: "the package xllamacpp is not installed")
    plan = make_plan(options, {})
    assert "model" not in [part.name for part in plan.parts]
    assert plan.env["TURNPOOL_AGENTS"].startswith("chat=turnpool_workers.agents.simulated:agent,")
    assert plan.note == ("No local model: the package xllamacpp is not installed. Answers are simulated.")


def test_simulated_can_be_chosen(options: Options) -> None:
    """No model is started, and there is nothing to warn of."""
    plan = make_plan(replace(options, simulated=True), {})
    assert "model" not in [part.name for part in plan.parts]
    assert plan.env["TURNPOOL_AGENTS"] == parts.SIMULATED_AGENTS
    assert plan.note is None


def test_flower_has_a_new_password_each_time_unless_one_is_set(options: Options) -> None:
    """Nobody can know it from before, and none is on a command line."""
    first, second = (make_plan(options, {}) for _ in range(2))
    passwords = {plan.env["TURNPOOL_FLOWER_PASSWORD"] for plan in (first, second)}
    assert len(passwords) == 2
    assert all(len(password) >= 16 for password in passwords)
    commands = " ".join(" ".join(part.command) for part in first.parts)
    assert first.env["TURNPOOL_FLOWER_PASSWORD"] not in commands
    own = make_plan(options, {"TURNPOOL_FLOWER_PASSWORD": "mine"})
    assert own.env["TURNPOOL_FLOWER_PASSWORD"] == "mine"


def test_a_busy_port_is_named_with_the_option_that_changes_it(options: Options) -> None:
    """One line says what is wrong and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        plan = make_plan(replace(options, flower_port=port), {})
        with pytest.raises(PortError) as raised:
            check_ports(tuple(part for part in plan.parts if part.name == "flower"))
    assert raised.value.message == (
        f"Port {port} (flower) cannot be used: address already in use. Choose another with --flower-port."
    )
