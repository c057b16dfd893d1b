"""`turnpool-flower`: Flower, behind a password, on turnpool's Celery app.

Flower is started in-process and not with its own command, so that the password never stands on a
command line, where `ps` would show it.
"""

import asyncio
import logging
import secrets
import signal
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import flower.views
from flower.app import Flower
from flower.options import default_options
from flower.urls import settings as web_settings
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from turnpool.credentials import Secret
from turnpool.logs import configure, get_logger
from turnpool.redis.access import Role
from turnpool.redis.connections import connect
from turnpool.settings import Settings, exit_on_settings_error, load, load_settings
from turnpool.store.startup import check
from turnpool_workers.celery.app import make_app

WORKERS_KEPT = 3600  # seconds that a worker which is gone is shown; without it for ever, each rollout's
TASKS_KEPT = 10_000  # a task here is a wake-up; Flower's own 100,000 can take some 100 MB


class FlowerSettings(BaseSettings):
    """Flower's own settings. `persistent`: a file that keeps its tasks over a restart."""

    model_config = SettingsConfigDict(env_prefix="TURNPOOL_FLOWER_", frozen=True, extra="ignore")

    password: Secret | None = Field(None, validate_default=True)
    user: str = Field("turnpool", pattern="^[^:]+$")
    host: str = "127.0.0.1"
    port: int = Field(5555, ge=0, le=65_535)
    cookie_secret: Secret | None = None
    persistent: str = ""

    @field_validator("password")
    @classmethod
    def _is_set(cls, value: SecretStr | None) -> SecretStr:
        if value is None:
            raise ValueError("it must be set, since Flower can stop workers")
        return value


class Lists:
    """The broker's lists, for Flower's page of queues."""

    def __init__(self, settings: Settings) -> None:
        self._broker = settings.broker

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """How many wake-ups each queue has."""
        redis = connect(self._broker, connections=1)
        try:
            return [{"name": name, "messages": int(await redis.llen(name))} for name in names]
        finally:
            await redis.aclose()


def serve() -> None:
    """Serve Flower until SIGTERM or SIGINT."""
    settings, own = load_settings(), load(FlowerSettings)
    configure(settings.log_level, "flower")
    with exit_on_settings_error():
        asyncio.run(check(settings, Role.FLOWER))
    # What was answered well (most of it probes and the page refreshing itself) is not worth a line.
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    # It warns four times whenever there is no worker to ask, as at every start.
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)
    assert own.password  # noqa: S101 - its validator has seen to that
    default_options.basic_auth = [f"{own.user}:{own.password.get_secret_value()}"]
    default_options.address, default_options.port = own.host, own.port
    default_options.max_tasks = TASKS_KEPT
    default_options.purge_offline_workers = WORKERS_KEPT
    if own.persistent:
        default_options.persistent, default_options.db = True, own.persistent
    # Flower's own client does not know all that a URL can say.
    flower.views.Broker = lambda *_, **__: Lists(settings)
    # Without one of its own, each start makes a new one.
    cookie_secret = own.cookie_secret.get_secret_value() if own.cookie_secret else secrets.token_urlsafe()
    server = Flower(
        capp=make_app(settings), options=default_options, **{**web_settings, "cookie_secret": cookie_secret}
    )
    for end in (signal.SIGTERM, signal.SIGINT):
        server.io_loop.asyncio_loop.add_signal_handler(end, server.stop)
    try:
        port = server.start_http_server()
    except OSError as error:
        _refuse(f"Flower cannot listen on port {default_options.port}: {error.strerror}.")
    get_logger(__name__).info("flower_started", address=default_options.address, port=port)
    server.start()


def _refuse(message: str) -> NoReturn:
    print(f"turnpool: {message}", file=sys.stderr)  # noqa: T201 - the settings' errors look the same
    raise SystemExit(2)
