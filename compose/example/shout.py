"""An agent of one's own: it says again what it was told, louder."""

from collections.abc import AsyncIterator

from turnpool import Turn


async def agent(turn: Turn) -> AsyncIterator[str]:
    """Answer word by word."""
    for word in str(turn.messages[-1]["content"]).split():
        yield f"{word.upper()} "
