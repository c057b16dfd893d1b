"""Every key in Redis: a function each, with its type, contents and lifetime.

`p` is the prefix of a partition (`prefix`), whose hash tag keeps all keys of the partition on one
node. Ids of sessions and turns are scoped (`ids.py`). The Lua scripts use these very functions:
`lua_functions` writes them out in Lua.

No key is without a time to live, apart from `INDEXES`: the record of the pool, and sorted sets of what
waits or runs, which are empty, so not there, when nothing does.
"""

import inspect
import itertools
from collections.abc import Callable

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

# On a cluster: enough for some tens of nodes, few enough to ask each about a queue.
CLUSTER_PARTITIONS = 64


def partitions(count: int) -> tuple[str, ...]:
    """Names of partitions: the first number whose slot lies in the first, second, … part of all slots.

    So each of some nodes, which have ranges of about the same size, has about as many partitions.
    """
    names: dict[int, str] = {}
    for name in map(str, itertools.count()):
        names.setdefault(key_slot(name.encode()) * count // REDIS_CLUSTER_HASH_SLOTS, name)
        if len(names) == count:
            return tuple(names[part] for part in range(count))
    raise AssertionError  # there are names enough


def prefix(namespace: str, partition: str) -> str:
    """Prefix of all keys of a partition."""
    return f"{namespace}:{{{partition}}}:"


def wakeups(namespace: str, queue: str) -> str:
    """List in the broker: a queue's wake-ups; its name is that of the Celery queue. No time to live."""
    return f"{namespace}:{queue}"


def control(namespace: str) -> str:
    """Celery's exchange for remote control of a pool's workers (`control_exchange`)."""
    return f"{namespace}.control"


def task_events(namespace: str) -> str:
    """Celery's exchange for a pool's task events (`event_exchange`)."""
    return f"{namespace}.events"


def queue_of(wakeups_name: str) -> str:
    """Return the queue whose wake-ups are in the list of this name."""
    return wakeups_name.partition(":")[2]


def pool(p: str) -> str:
    """Hash: the version of the schema (`schema`) and the id of the pool (`id`). Index."""
    return f"{p}pool"


def session(p: str, session_id: str) -> str:
    """Hash: created_at (ms), metadata (JSON). Session TTL, longer while a turn waits or runs."""
    return f"{p}session:{session_id}"


def line(p: str, session_id: str) -> str:
    """Hash: n (number of the newest turn), head (turn that is ready or runs).

    Outlives the session and its turns, so that no turn id is given twice.
    """
    return f"{p}line:{session_id}"


def messages(p: str, session_id: str) -> str:
    """List of messages (JSON), only ever added to. Session TTL."""
    return f"{p}messages:{session_id}"


def pending(p: str, session_id: str) -> str:
    """List of turn ids that wait behind the session's head, in order. Session TTL."""
    return f"{p}pending:{session_id}"


def events(p: str, database: str, session_id: str) -> str:
    """Channel: `<n> <SSE frame>` for every event of every turn of the session.

    Pub/sub ignores databases, so the number of the store's is part of the name.
    """
    return f"{p}events:{database}:{session_id}"


def relay(p: str) -> str:
    """Channel: nothing is published; an API's connection for pub/sub stays subscribed to it."""
    return f"{p}relay"


def sessions(p: str, tenant: str) -> str:
    """Sorted set: session id by last activity (ms). As long as the longest of its sessions may live."""
    return f"{p}sessions:{tenant}"


def turn(p: str, turn_id: str) -> str:
    """Hash: the turn (fields in `lua/submit.lua`). Session TTL + log TTL after its end, a day if keyed."""
    return f"{p}turn:{turn_id}"


def log(p: str, turn_id: str) -> str:
    """Stream: the turn's events, id `<seq>-0`, field `e` the whole SSE frame. Log TTL after its end."""
    return f"{p}log:{turn_id}"


def steps(p: str, turn_id: str) -> str:
    """Hash: results (JSON) of the turn's steps by name and arguments. As the turn, log TTL after its end."""
    return f"{p}steps:{turn_id}"


def idempotency(p: str, session_id: str, digest: str) -> str:
    """String: `<body digest> <turn id>` by the digest of an Idempotency-Key. 24 h."""
    return f"{p}idempotency:{session_id}:{digest}"


def newest(p: str) -> str:
    """String: the age (ms) in the newest turn's place in line. Seven days."""
    return f"{p}newest"


def ready(p: str, queue: str, tenant: str) -> str:
    """Sorted set: a tenant's turns that can be claimed, by priority then age. Index."""
    return f"{p}ready:{queue}:{tenant}"


def tenants(p: str, queue: str) -> str:
    """Sorted set: tenants that have ready turns, by service so far. Index."""
    return f"{p}tenants:{queue}"


def service(p: str, queue: str) -> str:
    """Hash: service of each tenant (`t:<tenant>`), virtual time `v`, turns that have `left`. Session TTL."""
    return f"{p}service:{queue}"


def queued(p: str, queue: str) -> str:
    """Sorted set: turns that wait (ready or behind their session's head), by time (ms). Index."""
    return f"{p}queued:{queue}"


def deadlines(p: str, queue: str) -> str:
    """Sorted set: turns that wait, by deadline (ms). Index."""
    return f"{p}deadlines:{queue}"


def leases(p: str, queue: str) -> str:
    """Sorted set: turns that run, by the end of their lease (ms). Index."""
    return f"{p}leases:{queue}"


def suspects(p: str, queue: str) -> str:
    """Sorted set: turns that wait for a trial, having lost their workers, the most suspect first. Index."""
    return f"{p}suspects:{queue}"


def trials(p: str, queue: str) -> str:
    """Sorted set: suspects that were released for a trial, by when (ms). A day."""
    return f"{p}trials:{queue}"


def isolation(p: str, queue: str) -> str:
    """Hash: size of the last trial (`size`), and what dead workers have lost (`lua/reap.lua`). An hour."""
    return f"{p}isolation:{queue}"


def releasing(p: str, queue: str) -> str:
    """String: a process is beginning a trial. Half a lease."""
    return f"{p}releasing:{queue}"


def unserved(p: str, queue: str) -> str:
    """Sorted set: agents whose turns a worker met that does not have them. Index."""
    return f"{p}unserved:{queue}"


def parked(p: str, queue: str, agent: str) -> str:
    """Sorted set: turns of such an agent, by priority then age; only its workers claim them. Index."""
    return f"{p}parked:{queue}:{agent}"


def missing(p: str, queue: str) -> str:
    """Hash: wake-ups found missing at the last look, and when. A minute."""
    return f"{p}missing:{queue}"


def pulse(p: str) -> str:
    """Hash: when a worker was last heard (at), and until when nothing may be reaped (grace). An hour."""
    return f"{p}pulse"


def watched(p: str) -> str:
    """String: since when deadlines are looked after without a pause (ms). Seconds after the last look."""
    return f"{p}watched"


def mark(p: str) -> str:
    """String: written to wait for its being safe (`durability.py`). A minute."""
    return f"{p}mark"


def worker(p: str, worker_id: str) -> str:
    """String: what a worker says of itself (JSON). A few leases."""
    return f"{p}worker:{worker_id}"


def workers(p: str) -> str:
    """Sorted set: worker ids by when they are taken for gone (ms). Index."""
    return f"{p}workers"


ALL: tuple[Callable[..., str], ...] = (
    pool, session, line, messages, pending, events, sessions, turn, log, steps, idempotency,
    newest, ready, tenants, service, queued, deadlines, leases, suspects, trials, isolation,
    releasing, unserved, parked, missing, pulse, watched, mark, worker, workers,
)  # fmt: skip
INDEXES = (
    "ready:",
    "tenants:",
    "queued:",
    "deadlines:",
    "leases:",
    "suspects:",
    "unserved:",
    "parked:",
    "workers",
    "pool",
)


def lua_functions() -> str:
    """The functions above in Lua, named `key_<name>`, without the prefix, which is `P` there."""
    return "\n".join(map(_in_lua, ALL))


def _in_lua(function: Callable[..., str]) -> str:
    parameters = list(inspect.signature(function).parameters)
    # NUL marks where a parameter goes; no key contains one.
    pieces = function(*(f"\0{name}\0" for name in parameters)).split("\0")
    names = {"p": "P"}
    terms = [
        names.get(piece, piece) if index % 2 else f"'{piece}'" for index, piece in enumerate(pieces) if piece
    ]
    return (
        f"local function key_{function.__name__}({', '.join(parameters[1:])}) return {' .. '.join(terms)} end"
    )
