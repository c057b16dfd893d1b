"""A table that is shown again and again, or once where nobody watches."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from turnpool.cli.client import Client
from turnpool.cli.options import make_client

REFRESH_SECONDS = 1.0

Fetch = Callable[[Client], Awaitable[dict[str, Any]]]
Render = Callable[[dict[str, Any]], RenderableType]


def show(urls: list[str] | None, fetch: Fetch, render: Render, *, once: bool) -> None:
    """Fetch and print; in a terminal go on until Ctrl-C."""
    console = Console()
    with suppress(KeyboardInterrupt):
        if once or not sys.stdout.isatty():
            asyncio.run(_print(urls, fetch, render, console))
        else:
            asyncio.run(_follow(urls, fetch, render, console))


async def _print(urls: list[str] | None, fetch: Fetch, render: Render, console: Console) -> None:
    async with make_client(urls) as client:
        console.print(render(await fetch(client)))


async def _follow(urls: list[str] | None, fetch: Fetch, render: Render, console: Console) -> None:
    async with make_client(urls) as client:
        with Live(render(await fetch(client)), console=console, auto_refresh=False) as live:
            while True:
                await asyncio.sleep(REFRESH_SECONDS)
                live.update(render(await fetch(client)), refresh=True)
