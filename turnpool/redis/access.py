"""Rights that turnpool needs on its servers: as rules for an ACL, and tried before a process starts.

A command is tried within a transaction that is discarded: the server checks rights when it queues the
command, and carries nothing out. So trying costs one round trip, writes nothing, and blocks nothing.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from turnpool import keys
from turnpool.settings import Durability, Settings

ADVICE = "`turnpool acl` prints the rules it needs"
UNKNOWN = "unknown command"


class Role(StrEnum):
    """Processes that need different rights."""

    API = "api"
    WORKER = "worker"
    FLOWER = "flower"


# Each command of the store, in scripts and alone, with arguments that a server would queue.
STORE = """
    DEL {key}|EXISTS {key}|EXPIRE {key} 1|TIME|TTL {key}|UNLINK {key}
    GET {key}|MGET {key}|SET {key} 1
    HDEL {key} f|HGET {key} f|HGETALL {key}|HINCRBY {key} f 1|HLEN {key}|HMGET {key} f
    HSET {key} f 1|HSETNX {key} f 1|HSTRLEN {key} f
    LLEN {key}|LPOP {key}|LPUSH {key} 1|LRANGE {key} 0 0|LREM {key} 1 1|RPUSH {key} 1
    XADD {key} * f 1|XRANGE {key} - +
    ZADD {key} 1 m|ZCARD {key}|ZCOUNT {key} 0 1|ZPOPMIN {key}|ZRANGE {key} 0 0|ZRANGEBYSCORE {key} 0 1
    ZREM {key} m|ZREMRANGEBYSCORE {key} 0 1|ZREVRANGEBYSCORE {key} 1 0|ZSCORE {key} m
    EVAL script 1 {key}|EVALSHA digest 1 {key}|SPUBLISH {channel} 1
    PING|INFO
"""
# The API subscribes to its sessions' events.
SUBSCRIBER = "SUBSCRIBE {relay}|UNSUBSCRIBE {relay}|SSUBSCRIBE {channel}|SUNSUBSCRIBE {channel}"
CLUSTER = "CLUSTER SLOTS"
# Wake-ups, sent and counted.
PUBLISHER = "LLEN {queue}|LPUSH {queue} 1|RPOP {queue} 1|SET {record} 1|PING"
CONSUMER = "BLMPOP 1 1 {queue} RIGHT"
# kombu's, for remote control and events: which queues an exchange has, replies, broadcasts.
KOMBU = """
    DEL {mailbox}|EXISTS {mailbox}|LLEN {mailbox}|LPUSH {mailbox} 1|PEXPIRE {mailbox} 1|RPOP {mailbox}
    BLMPOP 1 1 {mailbox} RIGHT
    SADD {bindings} 1|SREM {bindings} 1|SMEMBERS {bindings}|EXISTS {bindings}|DEL {bindings}
    ZADD {deadlines} 1 m|ZRANGEBYSCORE {deadlines} 0 1|ZREM {deadlines} m|TIME
    EVAL script 1 {bindings}|EVALSHA digest 1 {bindings}|SCRIPT LOAD script|SCRIPT EXISTS digest
    PUBLISH {control} 1|PSUBSCRIBE {control}|PUNSUBSCRIBE {control}|PUBLISH {events} 1|PING
"""
# Flower listens to events, and counts what waits.
LISTENER = "PSUBSCRIBE {events}|PUNSUBSCRIBE {events}|LLEN {queue}|DEL {event_queue}"
# What connections begin with, transactions, and KEDA's look at a key; not tried, or by trying the others.
CONNECTION = ("client|setinfo", "discard", "exec", "multi", "select", "type")


class Refusal(NamedTuple):
    """A command that a server does not carry out for this user, and what it says of it."""

    command: tuple[str, ...]
    error: ResponseError

    def __str__(self) -> str:
        name, *arguments = self.command
        if UNKNOWN in str(self.error):
            return f"the server has no {name}; turnpool needs Redis 7.0 or Valkey 7.2"
        said = " ".join([name, *arguments])
        return f"its user may not {said!r} (the server says: {self.error}); {ADVICE}"


def store_commands(settings: Settings, role: Role, prefix: str) -> list[tuple[str, ...]]:
    """What a process does in a partition of the store."""
    if role is Role.FLOWER:
        return []
    words = {
        "key": f"{prefix}probe",
        "channel": keys.events(prefix, str(settings.store.database), "probe"),
        "relay": keys.relay(prefix),
    }
    texts = [STORE, *([SUBSCRIBER] if role is Role.API else [])]
    waits = {Durability.AOF: "WAITAOF 1 0 1", Durability.REPLICA: "WAIT 1 1"}
    texts += [waits[settings.durability]] if settings.durability in waits else []
    return _commands(texts, words)


def broker_commands(settings: Settings, role: Role) -> list[tuple[str, ...]]:
    """What a process does on the broker."""
    texts = {
        Role.API: [PUBLISHER],
        Role.WORKER: [PUBLISHER, CONSUMER, KOMBU],
        Role.FLOWER: [KOMBU, LISTENER],
    }[role]
    words = _celery_names(settings)
    queues = settings.all_queues if role is Role.API else settings.queue_names
    lists = [keys.wakeups(settings.namespace, queue) for queue in queues]
    found = [command for name in lists for command in _commands(texts, words | {"queue": name})]
    return list(dict.fromkeys(found))


def _celery_names(settings: Settings) -> dict[str, str]:
    database = settings.broker.database
    control, events = keys.control(settings.namespace), keys.task_events(settings.namespace)
    return {
        "mailbox": f"probe.{control}.pidbox",
        "bindings": f"_kombu.binding.{control}.pidbox",
        "deadlines": "_kombu.binding_deadlines",
        "control": f"/{database}.{control}.pidbox",
        "events": f"/{database}.{events}/*",
        "event_queue": f"{events}.probe",
        "record": keys.pool(keys.prefix(settings.namespace, "0")),
    }


def _commands(texts: Iterable[str], words: dict[str, str]) -> list[tuple[str, ...]]:
    found = [part for text in texts for line in text.splitlines() for part in line.split("|") if part.strip()]
    return [tuple(word.format_map(words) for word in part.split()) for part in found]


async def find_refusal(redis: Redis, commands: Sequence[tuple[str, ...]]) -> Refusal | None:
    """The first of the commands that the server does not take from this user. Raises what redis-py raises."""
    pool: Any = redis.connection_pool
    connection = await pool.get_connection()
    try:
        # Alone: if it is refused, the others would be carried out.
        refused = await _ask(connection, [("MULTI",)])
        refused = refused or await _ask(connection, [*commands, ("DISCARD",)])
        if refused:
            # It may be in a transaction still.
            await connection.disconnect(nowait=True)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    else:
        return refused
    finally:
        await pool.release(connection)


async def _ask(connection: Any, commands: Sequence[tuple[str, ...]]) -> Refusal | None:
    await connection.send_packed_command(connection.pack_commands(commands))
    found = []
    for command in commands:
        try:
            await connection.read_response()
        except ResponseError as error:
            if isinstance(error, NoPermissionError) or UNKNOWN in str(error):
                found.append(Refusal(command, error))
            elif command == ("MULTI",):
                raise
    return found[0] if found else None


def acl(settings: Settings) -> list[str]:
    """Rules of a user for all processes: on one server, or the store's and the broker's."""
    everything = f"{settings.namespace}:*"
    store = _rules([STORE, SUBSCRIBER, CLUSTER, "WAIT 1 1|WAITAOF 1 0 1"], [everything], [everything])
    names = _celery_names(settings)
    control, events = keys.control(settings.namespace), keys.task_events(settings.namespace)
    key_patterns = [everything, f"*.{control}.pidbox", "_kombu.binding*", f"{events}.*"]
    channels = [names["control"], names["events"]]
    broker = _rules([PUBLISHER, CONSUMER, KOMBU, LISTENER], key_patterns, channels)
    if settings.broker != settings.store:
        return [_line(store), _line(broker)]
    return [_line([*dict.fromkeys(store + broker)])]


def _rules(texts: Iterable[str], key_patterns: Iterable[str], channels: Iterable[str]) -> list[str]:
    commands = {_right(*command) for command in _commands(texts, _Any())} | set(CONNECTION)
    rights = [f"+{name}" for name in commands]
    return [*(f"~{pattern}" for pattern in key_patterns), *(f"&{name}" for name in channels), *rights]


def _right(name: str, *arguments: str) -> str:
    return f"{name}|{arguments[0]}".lower() if name in {"CLUSTER", "SCRIPT"} else name.lower()


def _line(rules: Sequence[str]) -> str:
    patterns = [rule for rule in rules if rule[0] != "+"]
    listed = " ".join([*patterns, *sorted(rule for rule in rules if rule[0] == "+")])
    return f"user turnpool on >PASSWORD resetkeys resetchannels -@all {listed}"


class _Any(dict[str, str]):
    """Any word for a name."""

    def __missing__(self, key: str) -> str:
        return key
