"""Options that several commands share."""

import os
from typing import Annotated

import typer

from turnpool.cli.client import Client

DEFAULT_URL = "http://127.0.0.1:8000"

Urls = Annotated[
    list[str] | None,
    typer.Option(
        "--url",
        envvar="TURNPOOL_URL",
        help=f"An API address, {DEFAULT_URL} by default. Give more than one to go on at "
        "another when one goes away.",
        show_default=False,
        show_envvar=True,
    ),
]
Once = Annotated[bool, typer.Option("--once", help="Print once and exit.")]


def make_client(urls: list[str] | None) -> Client:
    """Make a client; the key comes from the environment, since `ps` shows a command line."""
    return Client(urls or [DEFAULT_URL], os.environ.get("TURNPOOL_API_KEY"))
