"""With TEST_ACL=1 processes of the acceptance tests have the rights that `turnpool acl` prints."""

import os

from turnpool.redis.access import acl
from turnpool.settings import Settings

ENABLED = bool(os.environ.get("TEST_ACL"))
# Every queue that an acceptance test uses.
AGENTS = "a=tests:a,b=tests:b@gpu"
# Every namespace, and database, that one has its pool in.
POOLS = (("turnpool", 0), ("turnpool", 1), ("turnpool", 3), ("a", 0), ("b", 0), ("wrong", 0))


def rules() -> list[str]:
    """The limited user, with the rights of all pools, as words of a server's configuration."""
    lines = (
        acl(Settings(agents=AGENTS, namespace=namespace, redis_url=f"redis://localhost:6379/{database}"))[0]
        for namespace, database in POOLS
    )
    return list(dict.fromkeys(word for line in lines for word in line.split()[1:]))


def server_config() -> dict[str, str]:
    """What a server of a test is configured with."""
    return {"user": " ".join(rules())} if ENABLED else {}


def server_options() -> list[str]:
    """The same on its command line."""
    return ["--user", *rules()] if ENABLED else []


def limited(url: str) -> str:
    """The URL as processes get it: with the limited user, unless it has one."""
    return url.replace("://", "://turnpool:PASSWORD@", 1) if ENABLED and "@" not in url else url
