"""The processes that `turnpool up` starts: their commands, their environment, their ports."""

import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from turnpool.cli import ready
from turnpool.errors import TurnpoolError
from turnpool.local import model, valkey
from turnpool.settings import Settings

SCRIPTS = Path(sys.executable).parent
# Asks the model of the settings: the end of its old and of its new target.
CHAT_AGENT = "workers.agents.chat:agent"
SIMULATED_AGENTS = (
    "chat=turnpool_workers.agents.simulated:agent,simulated=turnpool_workers.agents.simulated:agent"
)
DRAIN_SECONDS = "10"  # a person waits at the terminal; what takes longer goes on at the next start


class PortError(TurnpoolError):
    """A port cannot be used."""

    code = "port_unusable"

    def __init__(self, port: int, user: str, option: str, reason: str) -> None:
        super().__init__(f"Port {port} ({user}) cannot be used: {reason}. Choose another with {option}.")


@dataclass(frozen=True)
class Options:
    """What a person chose on the command line; `host` is where the API and Flower listen."""

    host: str
    port: int
    flower_port: int
    metrics_port: int
    valkey_port: int
    model_port: int
    data: Path
    simulated: bool


@dataclass(frozen=True)
class Part:
    """A process to start. `option` chooses its port, `ready` says whether it does its work."""

    name: str
    command: tuple[str, ...]
    host: str
    port: int
    option: str
    ready: Callable[[], bool]
    base: bool = False
    """Whether the others stand on it: then it is started before them and ended after them."""


@dataclass(frozen=True)
class Plan:
    """All that is to be started, and what a person should know about it."""

    parts: tuple[Part, ...]
    env: Mapping[str, str]
    model: str
    note: str | None


def make_plan(options: Options, env: Mapping[str, str]) -> Plan:
    """Decide what to start; whatever is set in `env` already stands."""
    own_redis = "TURNPOOL_REDIS_URL" not in env
    missing = None if _brings_model(options, env) else model.missing_part()
    own_model = not _brings_model(options, env) and missing is None
    children = _environment(options, env, own_model=own_model)
    parts = [
        *([_valkey(options)] if own_redis else []),
        *([_model(options)] if own_model else []),
        *_services(options, children),
    ]
    note = f"No local model: {missing}. Answers are simulated." if missing else None
    return Plan(tuple(parts), children, _model_name(children, own_model=own_model), note)


def check_ports(parts: tuple[Part, ...]) -> None:
    """Raise PortError for the first port that is in use or not allowed."""
    for part in parts:
        family = socket.AF_INET6 if ":" in part.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((part.host, part.port))
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise PortError(part.port, part.name, part.option, reason) from None


def _brings_model(options: Options, env: Mapping[str, str]) -> bool:
    return options.simulated or "TURNPOOL_LLM_BASE_URL" in env or "TURNPOOL_AGENTS" in env


def _environment(options: Options, env: Mapping[str, str], *, own_model: bool) -> dict[str, str]:
    defaults = {
        "TURNPOOL_REDIS_URL": f"redis://127.0.0.1:{options.valkey_port}/0",
        "TURNPOOL_DRAIN_SECONDS": DRAIN_SECONDS,
        "TURNPOOL_API_DRAIN_SECONDS": DRAIN_SECONDS,
        "TURNPOOL_FLOWER_USER": "turnpool",
        "TURNPOOL_FLOWER_PASSWORD": secrets.token_urlsafe(12),
    }
    if own_model:
        defaults["TURNPOOL_LLM_BASE_URL"] = f"http://127.0.0.1:{options.model_port}/v1"
        defaults["TURNPOOL_LLM_MODEL"] = model.MODEL_NAME
    elif "TURNPOOL_LLM_BASE_URL" not in env or options.simulated:
        defaults["TURNPOOL_AGENTS"] = SIMULATED_AGENTS
    chosen = {
        "TURNPOOL_HOST": options.host,
        "TURNPOOL_PORT": str(options.port),
        "TURNPOOL_METRICS_PORT": str(options.metrics_port),
        "TURNPOOL_FLOWER_HOST": options.host,
        "TURNPOOL_FLOWER_PORT": str(options.flower_port),
        "PYTHONUNBUFFERED": "1",  # logs come as they are written
    }
    return defaults | dict(env) | chosen


def _model_name(env: Mapping[str, str], *, own_model: bool) -> str:
    if own_model:
        return f"{model.MODEL_NAME} at {env['TURNPOOL_LLM_BASE_URL']}"
    if env.get("TURNPOOL_AGENTS") == SIMULATED_AGENTS:
        return "none: answers are simulated"
    if CHAT_AGENT not in env.get("TURNPOOL_AGENTS", CHAT_AGENT):
        return "your agents have their own"
    name, url = (Settings.model_fields[field].default for field in ("llm_model", "llm_base_url"))
    return f"{env.get('TURNPOOL_LLM_MODEL', name)} at {env.get('TURNPOOL_LLM_BASE_URL', url)}"


def _valkey(options: Options) -> Part:
    folder = options.data / "valkey"
    folder.mkdir(exist_ok=True)
    command = valkey.server_command(options.valkey_port, folder.resolve())
    return Part(
        name="valkey",
        command=tuple(command),
        host="127.0.0.1",
        port=options.valkey_port,
        option="--valkey-port",
        ready=lambda: ready.redis_answers(options.valkey_port),
        base=True,
    )


def _model(options: Options) -> Part:
    url = f"http://127.0.0.1:{options.model_port}/health"
    return Part(
        name="model",
        command=(sys.executable, "-m", model.__name__, "--port", str(options.model_port)),
        host="127.0.0.1",
        port=options.model_port,
        option="--model-port",
        ready=lambda: ready.http_answers(url),
        base=True,
    )


def _services(options: Options, env: Mapping[str, str]) -> list[Part]:
    host = "127.0.0.1" if options.host == "0.0.0.0" else options.host  # noqa: S104 - compared, not bound
    api = f"http://{host}:{options.port}"
    key = env.get("TURNPOOL_API_KEY")
    return [
        Part(
            name="api",
            command=(str(SCRIPTS / "turnpool-api"),),
            host=options.host,
            port=options.port,
            option="--port",
            ready=lambda: ready.http_answers(f"{api}/readyz"),
        ),
        Part(
            name="worker",
            command=(str(SCRIPTS / "turnpool-worker"),),
            host=options.host,
            port=options.metrics_port,
            option="--metrics-port",
            ready=lambda: ready.has_worker(f"{api}/v1/pool", key),
        ),
        Part(
            name="flower",
            command=(str(SCRIPTS / "turnpool-flower"),),
            host=options.host,
            port=options.flower_port,
            option="--flower-port",
            ready=lambda: ready.http_answers(f"http://{host}:{options.flower_port}/healthcheck"),
        ),
    ]
