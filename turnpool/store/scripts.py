"""The Lua scripts: one file per operation in `lua/`, loaded once, called by their digest."""

import asyncio
import re
from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from turnpool import keys
from turnpool.redis.nodes import Nodes
from turnpool.redis.pipelined import Command

Argument = str | bytes | int | float


class Script(NamedTuple):
    """A script's text with all it needs before it, and its digest."""

    text: str
    digest: str


@cache
def script(name: str, database: int) -> Script:
    """The script in `lua/<name>.lua` behind what it uses of the key functions and of `lib.lua`.

    `database`: that of the store.
    """
    folder = files("turnpool") / "lua"
    library = f"{keys.lua_functions()}\n{(folder / 'lib.lua').read_text()}"
    used = _with_used(library, (folder / f"{name}.lua").read_text())
    text = f"local P, DATABASE = KEYS[1], '{database}'\n{used}"
    # SHA-1 is how Redis names a script, no security rests on it.
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _with_used(library: str, text: str) -> str:
    """Put what a script uses of a library before it: each call of a script makes all its functions anew."""
    library, text = (re.sub(r"^ *--.*\n", "", code, flags=re.MULTILINE) for code in (library, text))
    # In Lua a local function is known only to what follows it.
    for part in reversed(re.split("^(?=local )", library, flags=re.MULTILINE)):
        name = re.match(r"local (?:function )?(\w+)", part)
        if name and re.search(rf"\b{name[1]}\b", text):
            text = part + text
    return text


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
