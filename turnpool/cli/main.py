"""The `turnpool` command."""

import sys
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console

from turnpool.cli.acl import acl
from turnpool.cli.chat import chat
from turnpool.cli.pool import pool
from turnpool.cli.transcript import plain
from turnpool.cli.turns import turns
from turnpool.cli.up import up
from turnpool.errors import SettingsError, TurnpoolError

app = typer.Typer(
    help="turnpool: the turns of AI agents on a worker pool.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def options(
    *, version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False
) -> None:
    """The turns of AI agents on a worker pool."""
    if version:
        print(f"turnpool {metadata.version('turnpool')}")  # noqa: T201 - what was asked for
        raise typer.Exit


for command in (up, chat, turns, pool, acl):
    app.command()(command)


def main() -> None:
    """Run the command line; an error that a user can mend is one line, not a traceback."""
    try:
        app()
    except TurnpoolError as error:
        console = Console(stderr=True, markup=False, emoji=False)
        console.print(plain(error.message), style="red", soft_wrap=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
