"""URLs of Redis servers: what they may say, and what is refused."""

from typing import Any

import pytest

from turnpool.redis.connections import connect
from turnpool.redis.urls import Kind, RedisUrl, Sentinels, Tls, parse_url

pytestmark = pytest.mark.anyio

GOOD = {
    "redis://h": RedisUrl(Kind.STANDALONE, (("h", 6379),)),
    "redis://h/": RedisUrl(Kind.STANDALONE, (("h", 6379),)),
    "redis://h:1/2": RedisUrl(Kind.STANDALONE, (("h", 1),), database=2),
    "redis://h?db=3": RedisUrl(Kind.STANDALONE, (("h", 6379),), database=3),
    "redis://:pw@h": RedisUrl(Kind.STANDALONE, (("h", 6379),), password="pw"),
    "redis://us%2Fer:p%40%3A%2F%23w@[::1]:1/2": RedisUrl(
        Kind.STANDALONE, (("::1", 1),), database=2, username="us/er", password="p@:/#w"
    ),
    "redis://user@h": RedisUrl(Kind.STANDALONE, (("h", 6379),), username="user"),
    "rediss://h:1": RedisUrl(Kind.STANDALONE, (("h", 1),), tls=Tls()),
    "rediss://h?ssl_cert_reqs=none": RedisUrl(Kind.STANDALONE, (("h", 6379),), tls=Tls(cert_reqs="none")),
    "rediss://h/1?ssl_ca_certs=/a.crt&ssl_certfile=/c.crt&ssl_keyfile=/c.key": RedisUrl(
        Kind.STANDALONE,
        (("h", 6379),),
        database=1,
        tls=Tls("/a.crt", "/c.crt", "/c.key"),
    ),
    "rediss://h?ssl_check_hostname=false": RedisUrl(
        Kind.STANDALONE, (("h", 6379),), tls=Tls(check_hostname=False)
    ),
    "unix:///run/redis.sock": RedisUrl(Kind.UNIX, path="/run/redis.sock"),
    "unix://user:p%40w@/run/a%20b.sock?db=1": RedisUrl(
        Kind.UNIX, path="/run/a b.sock", database=1, username="user", password="p@w"
    ),
    "sentinel://h/0?master=m": RedisUrl(Kind.SENTINEL, (("h", 26379),), sentinels=Sentinels("m")),
    "redis+sentinel://:pw@a:1,[::1],c/3?master=m&sentinel_username=u&sentinel_password=p%26w": RedisUrl(
        Kind.SENTINEL,
        (("a", 1), ("::1", 26379), ("c", 26379)),
        database=3,
        password="pw",
        sentinels=Sentinels("m", "u", "p&w"),
    ),
    "rediss+sentinel://h?master=m&ssl_ca_certs=/a.crt": RedisUrl(
        Kind.SENTINEL, (("h", 26379),), tls=Tls("/a.crt"), sentinels=Sentinels("m")
    ),
    "redis+cluster://a:1,b:2,c": RedisUrl(Kind.CLUSTER, (("a", 1), ("b", 2), ("c", 6379))),
    "rediss+cluster://u:pw@[::1]:1,b/0": RedisUrl(
        Kind.CLUSTER, (("::1", 1), ("b", 6379)), username="u", password="pw", tls=Tls()
    ),
}


@pytest.mark.parametrize("url", GOOD)
def test_urls_that_are_right(url: str) -> None:
    """Every documented form is read as it is meant."""
    assert parse_url(url) == GOOD[url]


WRONG = {
    "": "scheme",
    "localhost": "scheme",
    "localhost:6379": "scheme",
    "http://h": "scheme",
    "redis://": "names no host",
    "redis:///0": "names no host",
    "redis://:1": "names no host",
    "redis://h h": "names no host",
    "redis://[::1": "no URL",
    "redis://::1:6379": "names no host",
    "redis://a:1,b:2": "several hosts",
    "redis://h:x": "port is no number",
    "redis://h:0": "port is no number",
    "redis://h:99999": "port is no number",
    "redis://h:-1": "port is no number",
    "redis://h/abc": "database is a number",
    "redis://h/-1": "database is a number",
    "redis://h/1.5": "database is a number",
    "redis://h/0/1": "database is a number",
    "redis://h/99999999999": "database is a number",
    "redis://h/\N{FULLWIDTH DIGIT ONE}": "database is a number",
    "redis://h?db=abc": "database is a number",
    "redis://h/1?db=1": "database is given twice",
    "redis://h?db=1&db=2": "option db is given twice",
    "redis://h?db=": "option db is empty",
    "redis://h#0": "%23",
    "redis://h?ssl_cert_reqs=none": "ssl_cert_reqs needs TLS",
    "redis://h?ssl=true": "ssl needs TLS",
    "rediss://h?ssl_cert_reqs=maybe": "required, optional, none",
    "rediss://h?ssl_check_hostname=perhaps": "ssl_check_hostname",
    "rediss://h?ssl_keyfile=/k": "needs ssl_certfile",
    "rediss://h?ssl_ca_certs=/a&ssl_ca_certs=/b": "ssl_ca_certs is given twice",
    "unix://": "names no socket",
    "unix://run/redis.sock": "names no socket",
    "unix:///run/r.sock?db=x": "database is a number",
    "unix:///run/r.sock?password=x": "option password",
    "sentinel://h/0": "master's name",
    "sentinel://h/0?master=": "option master is empty",
    "sentinel:///0?master=m": "names no host",
    "sentinel://a:1,/0?master=m": "names no host",
    "sentinel://a:x/0?master=m": "port is no number",
    "sentinel://a:1/x?master=m": "database is a number",
    "sentinel://a:1?master=m&ssl=true": "rediss+sentinel://",
    "sentinel://a:1?master=m&master=n": "master is given twice",
    "redis://h?master=m": "option master",
    "redis+cluster://": "names no host",
    "redis+cluster://a:1,,b:2": "names no host",
    "redis+cluster://a:1/1": "no databases",
    "redis+cluster://a:1?db=1": "no databases",
} | {
    f"redis://h/0?{option}=1": f"the option {option}"
    for option in (
        "protocol", "health_check_interval", "socket_timeout", "socket_connect_timeout", "socket_keepalive",
        "max_connections", "decode_responses", "retry_on_timeout", "client_name", "encoding", "timeout",
        "username", "password", "host", "port", "path", "virtual_host", "nonsense",
    )
}  # fmt: skip


@pytest.mark.parametrize("url", WRONG)
def test_urls_that_are_wrong(url: str) -> None:
    """What can't work in every process is refused by name at the start, not at the first command."""
    with pytest.raises(ValueError, match=r".") as raised:
        parse_url(url)
    assert WRONG[url] in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:geheim@h:x",
        "redis://:geheim@h/geheim",
        "redis://:geheim@h?protocol=geheim",
        "redis://:one#geheim@h",
        "redis://:one/geheim@h",
        "redis://:one?geheim@h",
        "redis://:one?geheim=two@h",
        "redis://:one?geheim",
        "redis://:one?db=geheim@h",
        "redis://h?geheim%00=1",
        "sentinel://h?master=m&sentinel_password=geheim&sentinel_password=geheim",
        "sentinel://h?sentinel_password=geheim",
        "rediss://:geheim@h?ssl_cert_reqs=geheim",
        "geheim://geheim:geheim@geheim",
        "redis://:geheim@[::1",
    ],
)
def test_an_error_shows_no_part_of_a_password(url: str) -> None:
    """Also where a sign of it that is not encoded moves it into another part of the URL."""
    with pytest.raises(ValueError, match=r".") as raised:
        parse_url(url)
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize("url", GOOD)
async def test_clients_are_made_of_what_the_url_says(url: str) -> None:
    """Of every form but a cluster's, whose nodes are standalone servers."""
    parsed = parse_url(url)
    if parsed.kind is Kind.CLUSTER:
        parsed = parsed.node("n", 7)
    redis: Any = connect(parsed)
    options = redis.connection_pool.connection_kwargs
    assert (options["db"], options["username"], options["password"]) == (
        parsed.database,
        parsed.username,
        parsed.password,
    )
    redis.connection_pool.make_connection()
    await redis.aclose()


def test_text_and_repr_have_no_password() -> None:
    """They are for logs."""
    url = parse_url("sentinel://user:geheim@a,b:2/3?master=m&sentinel_password=geheim")
    assert str(url) == "sentinel://a:26379,b:2/3?master=m"
    assert "geheim" not in repr(url)


def test_passwords_of_the_settings_are_for_urls_without_one() -> None:
    """The server's and the Sentinels' are told apart."""
    url = parse_url("sentinel://user@a/3?master=m").with_passwords("server", "theirs")
    assert url.login == {"username": "user", "password": "server"}
    assert url.sentinel_options == {"username": None, "password": "theirs"}
    own = parse_url("sentinel://:p@a?master=m&sentinel_password=s")
    assert own.with_passwords("server", "theirs") == own
    assert parse_url("redis://h").with_passwords("", "theirs").password is None
