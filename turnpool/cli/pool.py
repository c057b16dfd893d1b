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
        state = "hung" if worker.get("hung") else "draining" if worker["draining"] else "ready"
        table.add_row(Text(worker["id"]), str(worker["slots"]), str(worker["running"]), state)
    unserved = [
        Text(f"{count} wait for a worker with agent {agent}")
        for queue in pool.get("queues", [])
        for agent, count in queue.get("unserved", {}).items()
    ]
    return Group(summary, *unserved, table)
