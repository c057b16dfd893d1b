"""What stands before a script: all it uses of the library, and no more."""

import re
from importlib.resources import files

import pytest
from redis.asyncio import Redis

from turnpool import keys
from turnpool.store.scripts import script

pytestmark = pytest.mark.anyio

LUA = files("turnpool") / "lua"
NAMES = sorted(entry.name.removesuffix(".lua") for entry in LUA.iterdir() if entry.name != "lib.lua")
FUNCTION = re.compile(r"^local function (\w+)", re.MULTILINE)
LIBRARY = FUNCTION.findall(f"{keys.lua_functions()}\n{(LUA / 'lib.lua').read_text()}")


@pytest.mark.parametrize("name", NAMES)
async def test_a_script_is_complete(redis_url: str, name: str) -> None:
    """It compiles, and whatever it calls of the library stands before the call."""
    text = script(name, 0).text
    async with Redis.from_url(redis_url) as redis:
        assert await redis.script_load(text) == script(name, 0).digest
    for called in set(re.findall(r"\b(\w+)\(", text)) & set(LIBRARY):
        assert re.search(rf"^local function {called}\b", text, re.MULTILINE), called
        first = min(match.start() for match in re.finditer(rf"\b{called}\(", text))
        assert text.rindex("local function ", 0, first + 1) == first - len("local function ")


@pytest.mark.parametrize("name", NAMES)
def test_a_script_has_no_function_that_it_does_not_use(name: str) -> None:
    """Each call of a script makes all its functions."""
    text = script(name, 0).text
    for defined in FUNCTION.findall(text):
        assert len(re.findall(rf"\b{defined}\b", text)) > 1, defined


def test_the_most_called_script_is_short() -> None:
    """Each token is one call of it."""
    defined = FUNCTION.findall(script("append", 0).text)
    assert {"write", "holds"} <= set(defined)
    assert not {"finish", "cancel", "promote", "key_worker"} & set(defined)
