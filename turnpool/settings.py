"""Settings, read from the environment (`TURNPOOL_*`).

A wrong value is one clear line on standard error and exit status 2 (`load_settings`).
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from turnpool.credentials import ApiKeys, HttpSecret, Secret, tenants_by_key
from turnpool.environment import check_names, unknown_variables
from turnpool.errors import SettingsError, UnknownAgentError
from turnpool.logs import get_logger
from turnpool.redaction import NO_SECRET, learn, redact
from turnpool.redis.urls import Kind, RedisUrl, parse_url

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
AGENT = re.compile(r"(?P<name>[A-Za-z0-9_-]{1,64})=(?P<target>[\w.]+:\w+)(@(?P<queue>[A-Za-z0-9_-]{1,64}))?")
HOST_NAME = re.compile(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]")
DEFAULT_QUEUE = "turns"
DEFAULT_TENANT = "default"

log = get_logger(__name__)

T = TypeVar("T", bound=BaseSettings)


def _http_url(value: str) -> str:
    """The URL, without blanks around it. The error shows no part of it, since it may hold a password."""
    url = value.strip()
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or " " in url or not url.isprintable():
        raise ValueError("it is no http(s)://host[:port]/path")
    return url


def _http_key(value: SecretStr) -> SecretStr:
    """The key, without blanks around it; a word in place of none, since a client wants one."""
    key = value.get_secret_value().strip() or NO_SECRET
    if not (key.isascii() and key.isprintable()):
        raise ValueError("it has characters that no HTTP header can carry")
    return SecretStr(key)


def _host_names(value: str) -> str:
    """Host names, comma-separated. Raises ValueError for one that no Host header can have."""
    for name in _split(value):
        if not HOST_NAME.fullmatch(name):
            msg = f"{name!r} is no host name (no scheme, no port), *.name or *"
            raise ValueError(msg)
    return value


def _redis_url(value: str) -> str:
    parse_url(value)
    return value


RedisUrlText = Annotated[str, AfterValidator(_redis_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
HostNames = Annotated[str, AfterValidator(_host_names)]
HttpKey = Annotated[SecretStr, AfterValidator(_http_key)]


class Durability(StrEnum):
    """What an accepted turn waits for before it is answered."""

    NONE = "none"
    AOF = "aof"
    REPLICA = "replica"


class AgentSpec(BaseModel, frozen=True):
    """Where an agent's code is (`module:attribute`) and which queue its turns go to."""

    name: str
    target: str
    queue: str


class Settings(BaseSettings):
    """All settings of all processes; each reads what it needs."""

    model_config = SettingsConfigDict(env_prefix="TURNPOOL_", frozen=True, extra="ignore")

    # No URL in a repr: it may hold a password.
    redis_url: RedisUrlText = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="The store: sessions, turns, events."
    )
    broker_url: RedisUrlText | None = Field(
        None, repr=False, description="Celery's broker; the store's server by default."
    )
    redis_password: Secret | None = Field(None, description="Its password, if the URL has none.")
    broker_password: Secret | None = Field(None, description="The broker's, if BROKER_URL has none.")
    sentinel_password: Secret | None = Field(None, description="The Sentinels', if the URL has none.")
    secrets_dir: str = Field(
        "", description="Folder whose files `turnpool_<setting>` give settings that the environment does not."
    )
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field(
        "turnpool",
        description="Prefix of every key, channel and Celery queue; pools on one server need different ones.",
    )
    agents: str = Field(
        "chat=turnpool_workers.agents.chat:agent",
        description="Agents as name=module:attribute[@queue], comma-separated; the first is the default.",
    )
    queues: str = Field(
        "", description="Queues a worker serves, comma-separated; those of its agents by default."
    )
    concurrency: int = Field(200, ge=1, le=10_000, description="Turns a worker runs at once.")
    threads: int = Field(
        0, ge=0, le=10_000, description="Threads for blocking code of agents; 0 for as many as CONCURRENCY."
    )
    hang_seconds: float = Field(
        60, ge=3, le=3600, description="A worker whose event loop stands still for so long ends."
    )
    lease_seconds: float = Field(
        3.0, ge=0.5, le=60, description="A worker silent for so long loses its turns."
    )
    durability: Durability = Field(
        Durability.NONE, description="What an accepted turn waits for: none, aof (on disk), replica (on one)."
    )
    max_attempts: int = Field(
        3, ge=1, le=100, description="Losses of its worker without progress after which a turn may fail."
    )
    deadline_seconds: float = Field(
        600, gt=0, le=86_400, description="Life of a turn, waiting included, if its post says no other."
    )
    session_ttl: int = Field(3600, ge=1, description="Seconds a session lives after its last turn.")
    log_ttl: int = Field(3600, ge=1, description="Seconds a turn's events can be read after its end.")
    max_queued: int = Field(10_000, ge=1, description="Turns that may wait in a queue.")
    max_session_queued: int = Field(100, ge=1, description="Turns that may wait in a session.")
    max_input_bytes: int = Field(1_000_000, ge=1, description="Largest request body.")
    max_bodies_bytes: int = Field(
        16_000_000, ge=1, description="Request bodies over 16 KB held at once; further ones wait."
    )
    max_connections: int = Field(10_000, ge=1, description="Client connections of an API process.")
    max_connections_per_address: int = Field(
        5_000, ge=1, description="Those from one address; a proxy in front is one address."
    )
    max_header_bytes: int = Field(32_768, ge=1024, description="Longest request head.")
    max_headers: int = Field(100, ge=10, description="Most headers of a request.")
    header_seconds: float = Field(20, gt=0, description="Time a client gets to send a request's head.")
    body_seconds: float = Field(60, gt=0, description="Time it gets to send the body.")
    write_seconds: float = Field(60, gt=0, description="Time it may stop reading an answer or a stream.")
    keep_alive_seconds: int = Field(
        130, ge=1, description="Time an idle connection is kept; longer than proxies in front keep theirs."
    )
    flush_ms: float = Field(25, ge=1, le=1000, description="Tokens of so long go out as one event.")
    drain_seconds: float = Field(110, ge=0, description="Time running turns get to end after SIGTERM.")
    api_drain_seconds: float = Field(
        30, ge=0, le=3600, description="Time calls that wait for a turn get to end after the API's SIGTERM."
    )
    pod_deletion_cost: bool = Field(
        default=False, description="On Kubernetes: keep the pod's deletion cost at the turns it runs."
    )
    provider_retries: int = Field(
        4,
        ge=0,
        le=20,
        description="Retries for transient provider errors; one that takes no request uses up none.",
    )
    show_errors: bool = Field(
        default=False,
        description="Show clients the texts of errors by agents and providers, not only the log.",
    )
    host: str = Field("127.0.0.1", description="Address the API and the metrics listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port of the API.")
    metrics_port: int = Field(9808, ge=0, le=65_535, description="Port of a worker's metrics; 0 for none.")
    api_keys: ApiKeys | None = Field(
        None, description="tenant:key, comma-separated; none: no key is asked for."
    )
    admin_key: HttpSecret | None = Field(None, description="Key for POST /drain.")
    open: bool = Field(
        default=False, description="Serve without API keys at a HOST that other machines can reach."
    )
    allowed_hosts: HostNames = Field(
        "", description="Without API keys: names the API is called by, besides local ones; *.name, * for any."
    )
    llm_base_url: HttpUrl = Field(
        "https://api.openai.com/v1", description="OpenAI-compatible endpoint of agent chat."
    )
    llm_model: str = Field("gpt-5-mini", description="Its model.")
    llm_models: str = Field(
        "", description="Models that `params.model` may name besides, comma-separated; `*`: any characters."
    )
    llm_api_key: HttpKey = Field(SecretStr(NO_SECRET), description="Its key.")
    chat_continue: Literal["auto", "always", "never"] = Field(
        "auto", description="Whether chat goes on with an answer that broke off; auto: where the model can."
    )
    first_token_seconds: float = Field(
        120,
        gt=0,
        le=3600,
        description="Silence of the model before its answer after which chat asks it again.",
    )
    stall_seconds: float = Field(
        30, gt=0, le=600, description="Silence of the model in mid-answer after which chat asks it again."
    )
    tracing: bool = Field(
        default=False, description="Export OpenTelemetry traces; OTEL_EXPORTER_OTLP_ENDPOINT says where to."
    )
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level that is logged."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ = self.agent_specs, self.queue_names
        if self.admin_key and self.admin_key.get_secret_value() in self.tenant_keys:
            raise ValueError("ADMIN_KEY: it is a tenant's key in API_KEYS as well; make another")
        if self.broker.kind is Kind.CLUSTER:
            msg = "BROKER_URL: Celery cannot use a cluster; name a standalone server or Sentinels"
            raise ValueError(msg)
        return self

    @cached_property
    def model_patterns(self) -> tuple[str, ...]:
        """Patterns of the models that `params.model` may name."""
        return tuple(_split(self.llm_models))

    @cached_property
    def agent_specs(self) -> dict[str, AgentSpec]:
        """Agents by name, the default first."""
        specs = {}
        for part in _split(self.agents):
            match = AGENT.fullmatch(part)
            if not match:
                msg = f"AGENTS: {part!r} is not name=module:attribute[@queue]"
                raise ValueError(msg)
            fields = match.groupdict()
            specs[fields["name"]] = AgentSpec(
                name=fields["name"], target=fields["target"], queue=fields["queue"] or DEFAULT_QUEUE
            )
        if not specs:
            msg = "AGENTS: at least one agent is needed"
            raise ValueError(msg)
        return specs

    def agent_spec(self, name: str | None) -> AgentSpec:
        """The agent of this name, or the default. Raises UnknownAgentError."""
        if name is None:
            return next(iter(self.agent_specs.values()))
        try:
            return self.agent_specs[name]
        except KeyError:
            raise UnknownAgentError(name, list(self.agent_specs)) from None

    @cached_property
    def queue_names(self) -> tuple[str, ...]:
        """Queues a worker serves."""
        names = _split(self.queues)
        for name in names:
            if not NAME.fullmatch(name):
                msg = f"QUEUES: {name!r} is not 1 to 64 letters, digits, '_' or '-'"
                raise ValueError(msg)
        return tuple(dict.fromkeys(names or self.all_queues))

    @property
    def served_agents(self) -> list[AgentSpec]:
        """Agents whose turns a worker gets; an image has to have no others. Raises SettingsError for none."""
        served = [spec for spec in self.agent_specs.values() if spec.queue in self.queue_names]
        if not served:
            raise SettingsError(f"TURNPOOL_QUEUES: no agent has a queue of {', '.join(self.queue_names)}")
        return served

    @property
    def all_queues(self) -> tuple[str, ...]:
        """Queues of all agents, each once."""
        return tuple(dict.fromkeys(spec.queue for spec in self.agent_specs.values()))

    @cached_property
    def tenant_keys(self) -> dict[str, str]:
        """Tenant by API key; empty where none are set."""
        return tenants_by_key(self.api_keys.get_secret_value()) if self.api_keys else {}

    @cached_property
    def allowed_host_names(self) -> tuple[str, ...]:
        """What `allowed_hosts` names, in lower case."""
        return tuple(name.lower() for name in _split(self.allowed_hosts))

    @property
    def store(self) -> RedisUrl:
        """Where the store is, passwords included."""
        return self._with_passwords(self.redis_url, self.redis_password)

    @property
    def broker(self) -> RedisUrl:
        """Where Celery's broker is, passwords included."""
        if self.broker_url is None:
            return self.store
        return self._with_passwords(self.broker_url, self.broker_password)

    def _with_passwords(self, url: str, password: Secret | None) -> RedisUrl:
        return parse_url(url).with_passwords(_text(password), _text(self.sentinel_password))

    @cached_property
    def is_one_server(self) -> bool:
        """Whether the broker's lists are in the store's database, where its scripts reach them."""
        return self.broker == self.store


def secrets_dir() -> str | None:
    """The folder of secret files, if there is to be one. Raises SettingsError if it is not there."""
    folder = os.environ.get("TURNPOOL_SECRETS_DIR")
    if folder and not Path(folder).is_dir():
        raise SettingsError(f"TURNPOOL_SECRETS_DIR: {folder} is no folder")
    return folder or None


def read_settings() -> Settings:
    """Settings from the environment. Raises SettingsError with one line that names the variable."""
    return _read(Settings)


def _read(kind: type[T]) -> T:
    folder, prefix = secrets_dir(), kind.model_config["env_prefix"]
    check_names(kind.model_fields, prefix, folder)
    try:
        settings = kind(_secrets_dir=folder)
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{prefix}{name}: {message}" if name else f"{prefix}{message}") from None
    learn(settings)
    return settings


def warn_of_unknown_settings() -> None:
    """Log variables of the environment that look like a setting and are none."""
    for variable in unknown_variables(Settings.model_fields):
        log.warning("unknown_setting", variable=variable)


def load_settings() -> Settings:
    """Settings of a process; a wrong value ends it with one line and status 2."""
    return load(Settings)


def load(kind: type[T]) -> T:
    """Settings of this kind; a wrong value ends the process with one line and status 2."""
    with exit_on_settings_error():
        return _read(kind)


@contextmanager
def exit_on_settings_error() -> Iterator[None]:
    """A SettingsError ends the process with one line and status 2."""
    try:
        yield
    except SettingsError as error:
        print(f"turnpool: {redact(error.message)}", file=sys.stderr)  # noqa: T201 - a line for who started it, not for the log
        raise SystemExit(2) from None


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
