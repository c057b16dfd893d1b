"""`turnpool turns`: the turns of a session."""

import time
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from turnpool.cli.live import show
from turnpool.cli.options import Once, Urls
from turnpool.cli.transcript import plain

COLOURS = {"in_progress": "yellow", "completed": "green", "failed": "red", "cancelled": "magenta"}
EXCERPT = 60  # characters of an answer in the table


def turns(
    session: Annotated[str, typer.Argument(help="The session's id.")],
    url: Urls = None,
    once: Once = False,  # noqa: FBT002 - typer's way
) -> None:
    """Show the turns of a session, again and again in a terminal."""
    show(url, lambda client: client.turns(session), _render, once=once)


def _render(answer: dict[str, Any]) -> RenderableType:
    table = Table(expand=True)
    for name in ("turn", "status", "agent", "attempt", "posted", "seconds"):
        table.add_column(name, no_wrap=True)
    # Only the answer gives way in a narrow terminal.
    table.add_column("answer", no_wrap=True, overflow="ellipsis", ratio=1)
    for turn in answer["turns"]:
        table.add_row(
            Text(turn["id"]),
            Text(turn["status"], style=COLOURS.get(turn["status"], "")),
            Text(turn["agent"]),
            str(turn["attempt"]),
            datetime.fromtimestamp(turn["created_at"]).astimezone().strftime("%H:%M:%S"),
            f"{(turn.get('ended_at') or time.time()) - turn['created_at']:.1f}",
            Text(_excerpt(turn)),
        )
    return table


def _excerpt(turn: dict[str, Any]) -> str:
    error = turn.get("error")
    text = error["message"] if error else turn.get("output") or ""
    words = " ".join(plain(text).split())
    return words if len(words) <= EXCERPT else words[: EXCERPT - 1] + "…"
