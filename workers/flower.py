"""`turnpool-flower`: Flower, behind a password, on turnpool's Celery app.

Flower is started in-process and not with its own command, so that the password never stands on a
command line, where `ps` would show it.
"""

import logging
import os
import signal
import sys
from typing import NoReturn

from flower.app import Flower
from flower.options import default_options
from flower.urls import settings as web_settings

from turnpool.logs import configure, get_logger
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
    # What was answered well (most of it probes and the page refreshing itself) is not worth a line.
    logging.getLogger("tornado.access").setLevel(logging.WARNING)
    # It warns four times whenever there is no worker to ask, as at every start.
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)
    default_options.basic_auth = [_credentials()]
    default_options.address = os.environ.get("TURNPOOL_FLOWER_HOST", DEFAULT_HOST)
    default_options.port = _port()
    default_options.max_tasks = TASKS_KEPT
    flower = Flower(capp=make_app(settings), options=default_options, **web_settings)
    for end in (signal.SIGTERM, signal.SIGINT):
        flower.io_loop.asyncio_loop.add_signal_handler(end, flower.stop)
    try:
        port = flower.start_http_server()
    except OSError as error:
        _refuse(f"Flower cannot listen on port {default_options.port}: {error.strerror}.")
    get_logger(__name__).info("flower_started", address=default_options.address, port=port)
    flower.start()


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
