"""URLs of Redis servers, parsed once into a `RedisUrl`; every client is made from that, Celery's too.

- `redis://[user:password@]host[:port][/db]`, with TLS `rediss://…`
- `unix://[user:password@]/path/to.sock[?db=1]`
- `sentinel://[user:password@]host[:port][,host[:port] …][/db]?master=NAME`, with TLS `rediss+sentinel://…`
- `redis+cluster://[user:password@]host[:port][,host[:port] …]`, with TLS `rediss+cluster://…`

Options are few and alike in every process; whatever else a client library would take from a URL is refused.
No error shows a part of a URL that could be of its password.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit


class Kind(StrEnum):
    """How a server is reached."""

    STANDALONE = "standalone"
    UNIX = "unix"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


SENTINEL_PORT = 26379
SERVER_PORT = 6379
MAX_PORT = 65_535
# Servers have 16 databases by default and at most some thousands; whether the server has this one is checked
# at the start (`startup.py`).
MAX_DATABASE = 2**31 - 1
# By scheme: how the server is reached, and whether with TLS.
SCHEMES = {
    "redis": (Kind.STANDALONE, False),
    "rediss": (Kind.STANDALONE, True),
    "unix": (Kind.UNIX, False),
    "sentinel": (Kind.SENTINEL, False),
    "redis+sentinel": (Kind.SENTINEL, False),
    "rediss+sentinel": (Kind.SENTINEL, True),
    "redis+cluster": (Kind.CLUSTER, False),
    "rediss+cluster": (Kind.CLUSTER, True),
}
FORMS = {
    Kind.STANDALONE: "redis://host:port/db",
    Kind.UNIX: "unix:///path/to.sock",
    Kind.SENTINEL: "sentinel://host:port/0?master=NAME",
    Kind.CLUSTER: "redis+cluster://host:port,host:port",
}
TLS_OPTIONS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
SENTINEL_OPTIONS = {"master", "sentinel_username", "sentinel_password"}
CERT_REQS = ("required", "optional", "none")
# A host, in brackets if it is an IPv6 address, and its port.
PLACE = re.compile(r"(\[(?P<ipv6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:\s]+))(:(?P<port>[^:]*))?")
PORT = re.compile("[1-9][0-9]{0,4}")
DATABASE = re.compile("[0-9]{1,10}")
OPTION = re.compile("[a-z_]{1,40}")

Place = tuple[str, int]


@dataclass(frozen=True)
class Tls:
    """How TLS is spoken; without more, the server's certificate must be good for its name."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cert_reqs: str = "required"
    check_hostname: bool = True

    @property
    def options(self) -> dict[str, Any]:
        """What redis-py's TLS connections take."""
        options = {
            "ssl_ca_certs": self.ca_certs,
            "ssl_certfile": self.certfile,
            "ssl_keyfile": self.keyfile,
            "ssl_cert_reqs": self.cert_reqs,
            # Without a certificate that counts, its name cannot.
            "ssl_check_hostname": self.check_hostname and self.cert_reqs != "none",
        }
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class Sentinels:
    """What a URL says of the Sentinels: which server they are asked for, and their own login."""

    master: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class RedisUrl:
    """Where a server is, and how to log in.

    `hosts`: the server, the Sentinels, or some nodes of a cluster; `path`: of a socket.
    """

    kind: Kind
    hosts: tuple[Place, ...] = ()
    path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    sentinels: Sentinels | None = None

    def __str__(self) -> str:
        """For logs, and for Celery: without user and password."""
        if self.kind is Kind.UNIX:
            return f"unix://{self.path}?db={self.database}"
        schemes = {form: scheme for scheme, form in reversed(SCHEMES.items())}
        scheme = schemes[self.kind, self.tls is not None]
        url = f"{scheme}://{','.join(place(*host) for host in self.hosts)}/{self.database}"
        return f"{url}?master={self.sentinels.master}" if self.sentinels else url

    @property
    def login(self) -> dict[str, str | None]:
        """User and password of the server."""
        return {"username": self.username, "password": self.password}

    @property
    def sentinel_options(self) -> dict[str, Any]:
        """What redis-py's clients of the Sentinels take: their own login, and TLS as for the server."""
        if self.sentinels is None:
            return {}
        login = {"username": self.sentinels.username, "password": self.sentinels.password}
        return login | ({"ssl": True, **self.tls.options} if self.tls else {})

    def with_passwords(self, password: str, sentinel_password: str) -> Self:
        """The same with these passwords, where the URL has none of its own."""
        changed = replace(self, password=self.password or password or None)
        if self.sentinels is None:
            return changed
        own = self.sentinels.password or sentinel_password or None
        return replace(changed, sentinels=replace(self.sentinels, password=own))

    def node(self, host: str, port: int) -> Self:
        """One node of this cluster."""
        return replace(self, kind=Kind.STANDALONE, hosts=((host, port),))


def parse_url(url: str) -> RedisUrl:
    """Parse a URL of the forms above. Raises ValueError with a message that holds no secret."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise ValueError("it is no URL (redis://host:port/db)") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"its scheme is not one of {', '.join(SCHEMES)} (redis://host:port/db)")
    kind, tls = SCHEMES[parts.scheme]
    login, _, rest = parts.netloc.rpartition("@")
    username, _, password = login.partition(":")
    # Such a sign in a password ends the URL's host too early. The rest of it must not be shown as an option.
    if parts.fragment or "@" in parts.query or ("@" in parts.path and kind is not Kind.UNIX):
        raise ValueError("in a user or password '/', '?', '#' and '@' are written %2F, %3F, %23 and %40")
    hosts = _hosts(rest, kind)
    options = _options(parts, kind, tls=tls)
    return RedisUrl(
        kind=kind,
        hosts=hosts,
        path=_path(parts, rest) if kind is Kind.UNIX else "",
        database=_database("" if kind is Kind.UNIX else parts.path, options, kind),
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=_tls(options) if tls else None,
        sentinels=_sentinels(options) if kind is Kind.SENTINEL else None,
    )


def _options(parts: SplitResult, kind: Kind, *, tls: bool) -> dict[str, str]:
    """The options of the URL, each known and given once."""
    allowed = (
        {"db"} | (TLS_OPTIONS if tls else set()) | (SENTINEL_OPTIONS if kind is Kind.SENTINEL else set())
    )
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed:
            raise ValueError(_unknown(name, allowed))
        if name in options:
            raise ValueError(f"its option {name} is given twice")
        if not value:
            raise ValueError(f"its option {name} is empty")
        options[name] = value
    return options


def _unknown(name: str, allowed: set[str]) -> str:
    known = f"there are: {', '.join(sorted(allowed))}"
    if not OPTION.fullmatch(name):
        return f"it has an option that turnpool does not know; {known}"
    if name in TLS_OPTIONS | {"ssl"}:
        return f"its option {name} needs TLS: rediss://, rediss+sentinel:// or rediss+cluster://; {known}"
    return f"it has the option {name}, which turnpool does not know; {known}"


def _hosts(netloc: str, kind: Kind) -> tuple[Place, ...]:
    if kind is Kind.UNIX:
        return ()
    port = SENTINEL_PORT if kind is Kind.SENTINEL else SERVER_PORT
    hosts = []
    for part in netloc.split(","):
        match = PLACE.fullmatch(part)
        if not match:
            raise ValueError(f"the URL names no host, or one that is none ({FORMS[kind]})")
        number = match["port"] or str(port)
        if not PORT.fullmatch(number) or int(number) > MAX_PORT:
            raise ValueError(f"its port is no number up to {MAX_PORT} ({FORMS[kind]})")
        hosts.append((match["ipv6"] or match["host"], int(number)))
    if kind is Kind.STANDALONE and len(hosts) > 1:
        raise ValueError(
            f"it names several hosts ({FORMS[kind]}); Sentinels and clusters have schemes of their own"
        )
    return tuple(hosts)


def _path(parts: SplitResult, host: str) -> str:
    if host or not parts.path.strip("/"):
        raise ValueError(f"it names no socket ({FORMS[Kind.UNIX]}, with three slashes)")
    return unquote(parts.path)


def _database(path: str, options: Mapping[str, str], kind: Kind) -> int:
    text = path.removeprefix("/").removesuffix("/")
    if text and "db" in options:
        raise ValueError(f"its database is given twice, in the path and as db= ({FORMS[kind]})")
    text = text or options.get("db", "0")
    if not DATABASE.fullmatch(text) or int(text) > MAX_DATABASE:
        raise ValueError(f"its database is a number of 0 or more ({FORMS[kind]})")
    if kind is Kind.CLUSTER and int(text):
        raise ValueError(f"a cluster has no databases but 0 ({FORMS[kind]})")
    return int(text)


def _tls(options: Mapping[str, str]) -> Tls:
    cert_reqs = options.get("ssl_cert_reqs", "required")
    if cert_reqs not in CERT_REQS:
        raise ValueError(f"its option ssl_cert_reqs is not one of {', '.join(CERT_REQS)}")
    check_hostname = options.get("ssl_check_hostname", "true").lower()
    if check_hostname not in {"true", "false"}:
        raise ValueError("its option ssl_check_hostname is neither true nor false")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("its option ssl_keyfile needs ssl_certfile")
    return Tls(
        ca_certs=options.get("ssl_ca_certs"),
        certfile=options.get("ssl_certfile"),
        keyfile=options.get("ssl_keyfile"),
        cert_reqs=cert_reqs,
        check_hostname=check_hostname == "true",
    )


def _sentinels(options: Mapping[str, str]) -> Sentinels:
    if "master" not in options:
        raise ValueError(f"a sentinel URL needs its master's name ({FORMS[Kind.SENTINEL]})")
    return Sentinels(options["master"], options.get("sentinel_username"), options.get("sentinel_password"))


def place(host: str, port: int) -> str:
    """A host and its port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
