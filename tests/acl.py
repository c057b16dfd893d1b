"""With TURNPOOL_TEST_ACL=1 processes of the acceptance tests have the rights that `turnpool acl` prints."""

import os

from turnpool.access import acl
from turnpool.settings import Settings

ENABLED = bool(os.environ.get("TURNPOOL_TEST_ACL"))
# Every queue that an acceptance test uses.
AGENTS = "a=tests:a,b=tests:b@gpu"


def rules() -> list[str]:
    """The limited user as the line of a server's configuration, without its first word."""
    return acl(Settings(agents=AGENTS))[0].split()[1:]


def server_config() -> dict[str, str]:
    """What a server of a test is configured with."""
    return {"user": " ".join(rules())} if ENABLED else {}


def server_options() -> list[str]:
    """The same on its command line."""
    return ["--user", *rules()] if ENABLED else []


def limited(url: str) -> str:
    """The URL as processes get it: with the limited user, unless it has one."""
    return url.replace("://", "://turnpool:PASSWORD@", 1) if ENABLED and "@" not in url else url
