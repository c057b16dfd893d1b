"""The calls of the store that clients, workers and the clock make, in the model's small world."""

from typing import Any

from tests.model.contents import QUEUE, SESSION, STEP, TENANT, WORKER
from tests.model.data import Call
from tests.model.promises import TEXT
from tests.model.system import Worker
from tests.turnpool.scripts import kit
from turnpool import keys
from turnpool.errors import LeaseLostError
from turnpool.events import delta, members
from turnpool.models import NewTurn, OnBusy, Outcome
from turnpool.states import Status
from turnpool.store.store import Held, Store

LOST = None
# It goes on with what was streamed.
AGENT = "agent"


def submit(number: int, on_busy: OnBusy) -> Call:
    """Post number 1, 2, …, under a key of its own."""
    new = NewTurn(
        SESSION, TENANT, QUEUE, AGENT, [user(f"{SESSION}.{number}")], 3600, {}, {},
        on_busy=on_busy, idempotency_key=str(number), body_digest="same",
    )  # fmt: skip
    return lambda store: store.submit(new)


def cancel(turn_id: str) -> Call:
    """A client cancels a turn."""
    return lambda store: store.cancel(turn_id, TENANT)


async def delete(store: Store) -> None:
    """A client deletes the session."""
    await store.delete_session(SESSION, TENANT)


async def claim(store: Store) -> Any:
    """A worker takes a turn: its id, the attempt, the last event, its step, and the queues to wake."""
    found, woken = await store.claim(QUEUE, WORKER, [AGENT])
    if not found:
        return None, len(woken)
    turn, step = found.turn, found.steps.get(STEP, b"").decode()
    return (turn.id, turn.attempt, turn.seq, step), len(woken)


def append(worker: Worker) -> Call:
    """A worker writes the next piece of text; False if the turn is not its own any more."""

    async def call(store: Store) -> bool:
        (holds,) = await store.append([(held(worker), [delta(TEXT[worker.said])])])
        if isinstance(holds, Exception):
            raise holds
        return holds

    return call


def settle(worker: Worker) -> Call:
    """A worker ends its turn with the rest of the text, or as it is."""
    text = TEXT[: worker.said] if worker.stops else TEXT
    answer = {"role": "assistant", "content": text}
    messages = (user(worker.turn), answer) if text else ()
    status = Status.CANCELLED if worker.stops else Status.COMPLETED
    return _settle(worker, text, Outcome(status, members(output=text), text, messages=messages))


def give_up(worker: Worker) -> Call:
    """A worker ends its turn at the deadline."""
    error = ("deadline_exceeded", "")
    return _settle(worker, "", Outcome(Status.FAILED, members(error=error), error=error))


def _settle(worker: Worker, text: str, outcome: Outcome) -> Call:
    """Gives the queues to wake, or LOST."""

    async def call(store: Store) -> int | None:
        try:
            return len(await store.settle(held(worker), [delta(c) for c in text[worker.said :]], outcome))
        except LeaseLostError:
            return LOST

    return call


def record(worker: Worker) -> Call:
    """A worker records its step, whose result is the attempt; gives what is recorded, or LOST."""

    async def call(store: Store) -> str | None:
        try:
            return (await store.record_step(held(worker), STEP, b"%d" % worker.attempt)).decode()
        except LeaseLostError:
            return LOST

    return call


def hand_back(worker: Worker) -> Call:
    """A worker gives its turn back; gives the queues to wake."""

    async def call(store: Store) -> int:
        return len(await store.hand_back(held(worker), []))

    return call


def renew(worker: Worker) -> Call:
    """A worker renews; gives why it must stop, or None."""

    async def call(store: Store) -> str | None:
        stop = await store.renew(kit.worker_info(WORKER), [(kit.stored(worker.turn), worker.attempt)])
        return stop.get(f"{kit.stored(worker.turn)}/{worker.attempt}")

    return call


async def reap(store: Store) -> int:
    """Somebody looks for leases that ran out; gives the queues to wake."""
    pulse = keys.pulse(store.prefix)
    if await store.redis.hget(pulse, "at") != b"1":
        await store.redis.hset(pulse, "at", await kit.server_ms(store))
    return len((await store.reap(QUEUE)).woken)


async def expire(store: Store) -> int:
    """Somebody who has looked all along looks for turns past their deadline; gives the queues to wake."""
    await store.redis.set(keys.watched(store.prefix), 1, ex=3600)
    _, woken = await store.expire(QUEUE)
    return len(woken)


def pass_deadline(turn_id: str) -> Call:
    """The deadline of a turn passes."""
    return lambda store: kit.pass_deadline(store, turn_id, QUEUE)


def top_up(listed: int) -> Call:
    """Somebody compares the list of wake-ups with what is ready; gives how many to add."""
    return lambda store: store.top_up(QUEUE, listed, 0)


def end_lease(turn_id: str) -> Call:
    """A lease runs out."""
    return lambda store: store.redis.zadd(keys.leases(store.prefix, QUEUE), {kit.stored(turn_id): 1}, xx=True)


async def restart(store: Store) -> None:
    """Redis was away for longer than a lease."""
    for turn_id in await store.redis.zrange(keys.leases(store.prefix, QUEUE), 0, -1):
        await end_lease(turn_id.decode())(store)
    await store.redis.hset(keys.pulse(store.prefix), mapping={"at": 1, "grace": 0})
    await store.redis.expire(keys.pulse(store.prefix), 3600)


async def end_grace(store: Store) -> None:
    """The living have had the time to renew."""
    await store.redis.hset(keys.pulse(store.prefix), "grace", 0)


def held(worker: Worker) -> Held:
    """What a worker believes to hold."""
    return Held(kit.stored(worker.turn), worker.attempt, worker.seq)


def user(turn_id: str) -> dict[str, str]:
    """The input of a turn, which says whose it is."""
    return {"role": "user", "content": turn_id}
