"""The Lua scripts: one file per operation in `lua/`, loaded once, called by their digest."""

from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import NoScriptError

from turnpool import keys
from turnpool.pipelined import Pipelined

Argument = str | bytes | int | float


class Script(NamedTuple):
    """A script's text with all it needs before it, and its digest."""

    text: str
    digest: str


@cache
def script(name: str) -> Script:
    """The script in `lua/<name>.lua` behind the key functions and `lib.lua`."""
    folder = files("turnpool") / "lua"
    parts = (
        "local P = KEYS[1]",
        keys.lua_functions(),
        (folder / "lib.lua").read_text(),
        (folder / f"{name}.lua").read_text(),
    )
    text = "\n".join(parts)
    # SHA-1 is how Redis names a script, no security rests on it.
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


async def run(redis: Pipelined, name: str, prefix: str, *arguments: Argument) -> Any:
    """Run a script; a server that does not know it yet is given its text."""
    try:
        return await redis.execute("EVALSHA", script(name).digest, 1, prefix, *arguments)
    except NoScriptError:
        return await redis.execute("EVAL", script(name).text, 1, prefix, *arguments)


def add(pipeline: Pipeline, name: str, prefix: str, *arguments: Argument) -> None:
    """Add a call to a pipeline; the caller sends the script first (`send`) on NoScriptError."""
    pipeline.evalsha(script(name).digest, 1, prefix, *arguments)


async def send(redis: Redis, name: str) -> None:
    """Make a script known to the server."""
    await redis.script_load(script(name).text)
