"""Ids of sessions and turns.

A client's ids belong to its tenant: two tenants may use the same ones. The store puts the tenant before
each, `<tenant>:<session>` and `<tenant>:<session>.<n>`, and keeps these scoped ids in its keys, indexes and
channels. Neither a tenant's name nor a session's id can have a colon.
"""


def scoped(tenant: str, client_id: str) -> str:
    """Return the store's id of a tenant's session or turn."""
    return f"{tenant}:{client_id}"


def unscoped(scoped_id: str) -> str:
    """Return the client's id of a session or turn of the store."""
    return scoped_id.partition(":")[2]


def tenant_of(scoped_id: str) -> str:
    """Return the tenant of a session or turn of the store."""
    return scoped_id.partition(":")[0]


def session_of(turn_id: str) -> str:
    """Return the id of a turn's session; scoped if the turn's is."""
    return turn_id.rpartition(".")[0]


def number_of(turn_id: str) -> int:
    """Return a turn's number in its session, from 1."""
    return int(turn_id.rpartition(".")[2])
