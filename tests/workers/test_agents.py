"""Loading of agents."""

import sys
from pathlib import Path

import pytest

from tests.conftest import AGENTS
from turnpool.errors import SettingsError
from turnpool.settings import AgentSpec, Settings
from turnpool_workers.agents import chat, load_agents, simulated


def spec(target: str) -> AgentSpec:
    """An agent `mine` at a place."""
    return AgentSpec(name="mine", target=target, queue="turns")


def test_the_built_in_agents_are_loaded() -> None:
    """They are there; by default only the one that answers people is."""
    assert load_agents(Settings().agent_specs.values()) == {"chat": chat.agent}
    both = Settings(agents=AGENTS).agent_specs.values()
    assert load_agents(both) == {"chat": chat.agent, "simulated": simulated.agent}


def test_the_built_in_agents_have_their_old_names_too(capsys: pytest.CaptureFixture[str]) -> None:
    """For a release, with a warning that says the new one."""
    assert load_agents([spec("workers.agents.chat:agent")]) == {"mine": chat.agent}
    assert "turnpool_workers.agents.chat" in capsys.readouterr().out
    with pytest.raises(SettingsError, match="No module named 'workers"):
        load_agents([spec("workers.agents.other:agent")])


def test_a_module_of_the_old_name_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project may have a package `workers` with agents of its own; what it lacks is said."""
    folder = tmp_path / "workers/agents"
    folder.mkdir(parents=True)
    (folder / "chat.py").write_text("async def agent(turn):\n    yield 'hi'\n")
    (folder / "simulated.py").write_text("import not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "workers", raising=False)
    (agent,) = load_agents([spec("workers.agents.chat:agent")]).values()
    assert agent.__code__.co_filename == str(folder / "chat.py")
    with pytest.raises(SettingsError, match="No module named 'not_installed'"):
        load_agents([spec("workers.agents.simulated:agent")])


def test_an_agent_of_ones_own_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any callable in any module that can be imported."""
    (tmp_path / "my_agents.py").write_text("async def answer(turn):\n    yield 'hi'\n")
    monkeypatch.syspath_prepend(tmp_path)
    agents = load_agents([spec("my_agents:answer")])
    assert agents == {"mine": sys.modules["my_agents"].answer}


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no_such_module:agent", "agent 'mine' cannot be loaded: No module named 'no_such_module'"),
        (
            "turnpool_workers.agents:missing",
            "agent 'mine' cannot be loaded: module 'turnpool_workers.agents' has no attribute",
        ),
        ("os:sep", "agent 'mine': os:sep is not a function"),
    ],
)
def test_one_that_cannot_be_loaded_is_named(target: str, says: str) -> None:
    """The error names the variable, the agent and what is wrong."""
    with pytest.raises(SettingsError) as raised:
        load_agents([spec(target)])
    assert raised.value.message.startswith(f"TURNPOOL_AGENTS: {says}")


def test_a_missing_import_of_the_agent_itself_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent whose own dependency is not installed says which."""
    (tmp_path / "needy_agent.py").write_text("import not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError, match="No module named 'not_installed'"):
        load_agents([spec("needy_agent:agent")])


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def agent(:", "SyntaxError: invalid syntax"),
        ("raise ValueError('a\\n\\n  b')", "ValueError: a b"),
    ],
)
def test_a_module_that_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    """Whatever it raises, the agent and the error are named."""
    (tmp_path / "raising_agent.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError) as raised:
        load_agents([spec("raising_agent:agent")])
    assert raised.value.message.startswith(f"TURNPOOL_AGENTS: agent 'mine' cannot be loaded: {says}")
    assert "\n" not in raised.value.message
