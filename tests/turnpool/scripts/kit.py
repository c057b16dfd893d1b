"""Steps that the tests of the scripts share."""

from collections.abc import Callable
from typing import Any

from turnpool import keys
from turnpool.agent import Message
from turnpool.events import Entry, data_of, delta, members, seq_of
from turnpool.ids import scoped
from turnpool.models import NewTurn, Outcome, Reaped, TurnRecord, WorkerInfo
from turnpool.states import Status
from turnpool.store.store import Held, Store

MakeTurn = Callable[..., NewTurn]
HELLO: Message = {"role": "user", "content": "hello"}


def stored(turn_id: str) -> str:
    """The store's id of a turn of tenant `default`; one that has its tenant stays as it is."""
    return turn_id if ":" in turn_id else scoped("default", turn_id)


async def take(store: Store, worker: str = "w1", queue: str = "turns") -> Held:
    """Claim the next turn, which must be there."""
    claim, _ = await store.claim(queue, worker)
    assert claim is not None
    return Held(claim.turn.scoped_id, claim.turn.attempt, claim.turn.seq)


async def write(store: Store, held: Held, *entries: Entry) -> Held:
    """Append events, which must be taken."""
    assert await store.append([(held, entries)]) == [True]
    return held._replace(seq=held.seq + len(entries))


async def say(store: Store, held: Held, *texts: str) -> Held:
    """Append text, each piece an event."""
    return await write(store, held, *map(delta, texts))


def completed(text: str = "hi") -> Outcome:
    """The end of a turn that went well."""
    messages = (HELLO, {"role": "assistant", "content": text})
    return Outcome(Status.COMPLETED, members(output=text, usage=None), text, messages=messages)


def failed(code: str = "agent_error") -> Outcome:
    """The end of a turn that went wrong."""
    return Outcome(Status.FAILED, members(error={"code": code, "message": "no"}), error=(code, "no"))


async def events(store: Store, turn_id: str) -> list[dict[str, Any]]:
    """The data of all events in a turn's log."""
    found: list[bytes] = []
    while page := await store.frames(turn_id, "default", seq_of(found[-1]) if found else 0):
        found += page
    return [data_of(frame) for frame in found]


async def kinds(store: Store, turn_id: str) -> list[str]:
    """The types of all events in a turn's log."""
    return [str(event["type"]) for event in await events(store, turn_id)]


async def record(store: Store, turn_id: str, tenant: str = "default") -> TurnRecord:
    """The turn as it is stored."""
    return await store.turn(turn_id, tenant)


async def contents(store: Store, session_id: str = "s", tenant: str = "default") -> list[str]:
    """What the session's messages say."""
    return [str(message["content"]) for message in await store.messages(session_id, tenant)]


async def server_ms(store: Store) -> int:
    """The server's time."""
    seconds, microseconds = await store.redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


async def end_lease(store: Store, *turn_ids: str, queue: str = "turns") -> None:
    """The leases of these turns run out now, while other workers are heard."""
    for turn_id in turn_ids:
        await store.redis.zadd(keys.leases(store.prefix, queue), {stored(turn_id): 1}, xx=True)
    # In a while: a machine that stands still between this and the next call is no outage of Redis.
    pulse = {"at": await server_ms(store) + 10_000, "grace": 0}
    await store.redis.hset(keys.pulse(store.prefix), mapping=pulse)
    await store.redis.expire(keys.pulse(store.prefix), 60)


async def lose(store: Store, held: Held, queue: str = "turns") -> Reaped:
    """The turn's worker is lost, and another finds out."""
    await end_lease(store, held.turn_id, queue=queue)
    return await store.reap(queue)


async def lose_events(store: Store, count: int) -> None:
    """The server loses the last events of s.1, as one does that takes over before it has them."""
    turn, log = keys.turn(store.prefix, "default:s.1"), keys.log(store.prefix, "default:s.1")
    seq = int(await store.redis.hget(turn, "seq"))
    kept = (await store.redis.xrange(log))[:-count]
    await store.redis.delete(log)
    for entry_id, fields in kept:
        await store.redis.xadd(log, fields, id=entry_id)
    await store.redis.expire(log, 60)
    await store.redis.hset(turn, "seq", seq - count)


async def pass_deadline(store: Store, turn_id: str, queue: str = "turns") -> None:
    """The deadline of a turn that waits passes now."""
    await store.redis.hset(keys.turn(store.prefix, stored(turn_id)), "deadline_at", 1)
    await store.redis.zadd(keys.deadlines(store.prefix, queue), {stored(turn_id): 1}, xx=True)


def worker_info(worker: str = "w1", **changes: Any) -> WorkerInfo:
    """What a worker says of itself."""
    fields: dict[str, Any] = {"queues": ("turns",), "slots": 10, "running": 0, "draining": False} | changes
    return WorkerInfo(worker, **fields)
