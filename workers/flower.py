"""`turnpool-flower`: Flower, behind a password, on turnpool's Celery app.

Flower is started in-process and not with its own command, so that the password never stands on a
command line, where `ps` would show it.
"""

import asyncio
import os
import signal
import sys
from typing import NoReturn

from flower.app import Flower
from flower.options import default_options
from flower.urls import settings as web_settings

from turnpool.logs import configure
from turnpool.settings import load_settings
from workers.app import make_app

DEFAULT_USER = "turnpool"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = "5555"
TASKS_KEPT = 10_000  # a task here is a wake-up; Flower's own 100,000 can take some 100 MB


def main() -> None:
    """Serve Flower until SIGTERM or SIGINT."""
    settings = load_settings()
    configure(settings.log_level, "flower")
    default_options.basic_auth = [_credentials()]
    default_options.address = os.environ.get("TURNPOOL_FLOWER_HOST", DEFAULT_HOST)
    default_options.port = _port()
    default_options.max_tasks = TASKS_KEPT
    asyncio.run(_serve(Flower(capp=make_app(settings), options=default_options, **web_settings)))


def _credentials() -> str:
    password = os.environ.get("TURNPOOL_FLOWER_PASSWORD")
    if not password:
        _refuse("set TURNPOOL_FLOWER_PASSWORD: Flower can stop workers, so it needs a password.")
    return f"{os.environ.get('TURNPOOL_FLOWER_USER', DEFAULT_USER)}:{password}"


def _port() -> int:
    value = os.environ.get("TURNPOOL_FLOWER_PORT", DEFAULT_PORT)
    if not value.isdecimal() or int(value) > 65_535:  # noqa: PLR2004 - the highest port there is
        _refuse(f"TURNPOOL_FLOWER_PORT: {value!r} is not a port from 0 to 65535.")
    return int(value)


def _refuse(message: str) -> NoReturn:
    print(f"turnpool: {message}", file=sys.stderr)  # noqa: T201 - the settings' errors look the same
    raise SystemExit(2)
