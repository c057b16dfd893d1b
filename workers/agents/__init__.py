"""Loading of agents, and those that come with turnpool."""

from collections.abc import Iterable
from importlib import import_module
from typing import cast

from turnpool.agent import Agent, check
from turnpool.errors import SettingsError
from turnpool.settings import AgentSpec


def load_agents(specs: Iterable[AgentSpec]) -> dict[str, Agent]:
    """The agents by name. Raises SettingsError for one that cannot be loaded, or refuses the settings."""
    return {spec.name: _load(spec) for spec in specs}


def _load(spec: AgentSpec) -> Agent:
    module, _, attribute = spec.target.partition(":")
    try:
        agent = getattr(import_module(module), attribute)
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
