"""The Lua scripts: one file per operation in `lua/`, loaded once, called by their digest."""

import asyncio
from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from turnpool import keys
from turnpool.nodes import Nodes
from turnpool.pipelined import Command

Argument = str | bytes | int | float


class Script(NamedTuple):
    """A script's text with all it needs before it, and its digest."""

    text: str
    digest: str


@cache
def script(name: str, database: int) -> Script:
    """The script in `lua/<name>.lua` behind the key functions and `lib.lua`, for a store in this database."""
    folder = files("turnpool") / "lua"
    parts = (
        f"local P, DATABASE = KEYS[1], '{database}'",
        keys.lua_functions(),
        (folder / "lib.lua").read_text(),
        (folder / f"{name}.lua").read_text(),
    )
    text = "\n".join(parts)
    # SHA-1 is how Redis names a script, no security rests on it.
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


async def run(nodes: Nodes, name: str, prefix: str, *arguments: Argument) -> Any:
    """Run a script; a server that does not know it yet is given its text."""
    try:
        return await nodes.execute(prefix, *call(nodes, name, prefix, *arguments))
    except NoScriptError:
        text = script(name, nodes.database).text
        return await nodes.execute(prefix, "EVAL", text, 1, prefix, *arguments)


async def run_many(nodes: Nodes, name: str, calls: Sequence[tuple[str, Sequence[Argument]]]) -> list[Any]:
    """Run a script so many times, in one pipeline for each node; gives each one's answer or error.

    Only for scripts that may be called again with the same arguments.
    """
    commands = [(prefix, call(nodes, name, prefix, *arguments)) for prefix, arguments in calls]
    replies = await nodes.many(commands)
    unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        again = (run(nodes, name, calls[index][0], *calls[index][1]) for index in unknown)
        answers = await asyncio.gather(*again, return_exceptions=True)
        for index, answer in zip(unknown, answers, strict=True):
            replies[index] = answer
    return replies


def call(nodes: Nodes, name: str, prefix: str, *arguments: Argument) -> Command:
    """The command that runs a script which the server knows."""
    return ("EVALSHA", script(name, nodes.database).digest, 1, prefix, *arguments)
