"""`turnpool acl`: the rights that turnpool needs on its servers."""

from turnpool.redis.access import acl as rules
from turnpool.settings import read_settings


def acl() -> None:
    """Print the ACL rule of turnpool's user: a line for an ACL file; with a broker of its own, a second one.

    It is for the settings of the environment: queues, databases, and whether the broker is apart.
    """
    for line in rules(read_settings()):
        print(line)  # noqa: T201 - to be copied
