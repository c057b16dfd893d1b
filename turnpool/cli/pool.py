"""`turnpool pool`: what the pool does now."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from turnpool.cli.live import show
from turnpool.cli.options import Once, Urls


def pool(url: Urls = None, once: Once = False) -> None:  # noqa: FBT002 - typer's way
    """Show queued and running turns and the workers, again and again in a terminal."""
    show(url, lambda client: client.pool(), _render, once=once)


def _render(pool: dict[str, Any]) -> RenderableType:
    summary = Text(
        f"{pool['queued']} queued, {pool['running']} running, "
        f"oldest waits {pool['oldest_wait_seconds']:.1f} s"
    )
    table = Table("worker", "slots", "running", "state")
    for worker in sorted(pool["workers"], key=lambda worker: str(worker["id"])):
        state = "draining" if worker["draining"] else "ready"
        table.add_row(Text(worker["id"]), str(worker["slots"]), str(worker["running"]), state)
    return Group(summary, table)
