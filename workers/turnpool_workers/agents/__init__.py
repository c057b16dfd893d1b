"""Loading of agents, and those that come with turnpool."""

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import cast

from turnpool.agent import Agent, check
from turnpool.errors import SettingsError
from turnpool.logs import get_logger
from turnpool.settings import AgentSpec

log = get_logger(__name__)

# Where the built-in agents were until 0.1; these names work until 0.3.
RENAMED = {f"workers.agents.{name}": f"turnpool_workers.agents.{name}" for name in ("chat", "simulated")}


def load_agents(specs: Iterable[AgentSpec]) -> dict[str, Agent]:
    """The agents by name. Raises SettingsError for one that cannot be loaded, or refuses the settings."""
    return {spec.name: _load(spec) for spec in specs}


def _load(spec: AgentSpec) -> Agent:
    module, _, attribute = spec.target.partition(":")
    try:
        agent = getattr(_module(module), attribute)
    # Its module may raise anything, or end the process.
    except (Exception, SystemExit) as error:
        # Some errors have many lines.
        reason = " ".join(str(error).split())
        if not isinstance(error, ImportError | AttributeError):
            reason = f"{type(error).__name__}: {reason}"
        raise SettingsError(f"TURNPOOL_AGENTS: agent {spec.name!r} cannot be loaded: {reason}") from error
    if not callable(agent):
        raise SettingsError(f"TURNPOOL_AGENTS: agent {spec.name!r}: {spec.target} is not a function")
    loaded = cast("Agent", agent)
    check(loaded)
    return loaded


def _module(name: str) -> ModuleType:
    """The module of an agent; a built-in one by its old name too, unless a user has a module with it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if name not in RENAMED or not name.startswith(error.name or name):
            raise
    log.warning("agent_target_renamed", old=name, new=RENAMED[name], advice="change it in TURNPOOL_AGENTS")
    return import_module(RENAMED[name])
