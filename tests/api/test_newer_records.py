"""Records of another release: members that this one does not know, and members that it misses."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from tests.api.clients import post
from tests.api.sse import stream
from tests.api.worker import claim
from turnpool import keys
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio

WORKER: dict[str, Any] = {
    "id": "w", "queues": ["turns"], "slots": 5, "running": 1, "draining": False,
    "agents": ["a"], "hung": False,
}  # fmt: skip
WORKERS: list[bytes] = [
    orjson.dumps(WORKER | {"models": ["a"], "version": {"turnpool": "9"}}),
    *(orjson.dumps({name: value for name, value in WORKER.items() if name != missing}) for missing in WORKER),
    orjson.dumps(WORKER | {"slots": "many", "queues": {"turns": 5}, "draining": None}),
    b"{}",
    b"[]",
    b"null",
    b"not json",
]
# All but those that make a turn one: its id, whose it is.
TURN_FIELDS = (
    "session", "n", "weight", "queue", "agent", "status", "priority", "attempt", "losses", "seq", "input",
    "params", "metadata", "created_at", "queued_at", "deadline_at", "score",
)  # fmt: skip


async def all_calls(client: httpx.AsyncClient) -> dict[str, httpx.Response]:
    """Every call that reads, of session s."""
    paths = (
        "/v1/pool", "/metrics", "/v1/sessions", "/v1/sessions?include=metadata", "/v1/sessions/s",
        "/v1/sessions/s/turns", "/v1/turns/s.1", "/v1/turns/s.1/events?follow=false",
        "/v1/sessions/s/turns?include=input&include=output&include=params&include=metadata",
    )  # fmt: skip
    answers = {path: await client.get(path) for path in paths}
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(paths, 200)
    return answers


@pytest.mark.parametrize("record", WORKERS)
async def test_a_workers_record_is_read_as_far_as_it_is_known(
    client: httpx.AsyncClient, store: Store, record: bytes
) -> None:
    """The pool and the metrics show the worker, and the others beside it."""
    good = orjson.dumps(WORKER)
    for name, stored in (("strange", record), ("w", good)):
        await store.redis.set(keys.worker(store.prefix, name), stored, ex=60)
        await store.redis.zadd(keys.workers(store.prefix), {name: 1})
    workers = {worker["id"]: worker for worker in (await client.get("/v1/pool")).json()["workers"]}
    assert workers["w"] == WORKER
    assert set(workers["strange"]) == set(WORKER)
    assert (await client.get("/metrics")).status_code == 200


@pytest.mark.parametrize("status", ["waiting", "paused", "", "ünknown"])
async def test_a_status_of_a_newer_release_is_shown_and_has_not_ended(
    client: httpx.AsyncClient, store: Store, status: str
) -> None:
    """Lists, the turn, the wait for its end and its stream go on; a cancel is left for those who know it."""
    await post(client)
    run = await claim(store)
    turn = keys.turn(store.prefix, "default:s.1")
    await store.redis.hset(turn, "status", status)
    answers = await all_calls(client)
    assert answers["/v1/turns/s.1"].json()["status"] == status
    assert answers["/v1/sessions/s/turns"].json()["turns"][0]["status"] == status
    assert (await client.get("/v1/turns/s.1", params={"wait": 0.05})).json()["status"] == status
    async with stream(client, "/v1/turns/s.1/events", params={"after": 1}) as events:
        assert (await events.next()).kind == "turn.in_progress"
        cancelled = await client.post("/v1/turns/s.1/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (202, status)
        assert await store.redis.hget(turn, "cancel") == b"1"
        await store.redis.hset(turn, "status", "in_progress")
        await run.cancelled()
        assert [event.kind for event in await asyncio.wait_for(events.rest(), 5)] == ["turn.cancelled"]


@pytest.mark.parametrize("field", TURN_FIELDS)
async def test_a_turn_without_a_member_can_be_read(
    client: httpx.AsyncClient, store: Store, field: str
) -> None:
    """Whatever is missing is empty in the answer."""
    await post(client)
    await store.redis.hdel(keys.turn(store.prefix, "default:s.1"), field)
    answers = await all_calls(client)
    assert answers["/v1/turns/s.1"].json()["id"] == "s.1"
    async with stream(client, "/v1/turns/s.1/events") as events:
        assert (await events.next()).kind == "turn.queued"


async def test_members_that_are_not_known_change_nothing(client: httpx.AsyncClient, store: Store) -> None:
    """Of a turn, its session, its line, its queue and the pool; the turn runs and is answered."""
    await post(client)
    p, more = store.prefix, {"new": "1", "asks": "[{}]", "usage2": "x", "ünknown": "\xff"}
    hashes = (
        keys.turn(p, "default:s.1"), keys.session(p, "default:s"), keys.line(p, "default:s"),
        keys.service(p, "turns"), keys.pulse(p),
        keys.missing(p, "turns"), keys.steps(p, "default:s.1"),
    )  # fmt: skip
    for name in hashes:
        await store.redis.hset(name, mapping=more)
        await store.redis.expire(name, 100)
    await all_calls(client)
    run = await claim(store)
    await store.reap("turns")
    await store.expire("turns")
    assert await store.top_up("turns", 0, 1) == 0
    await run.say("hello")
    await run.complete()
    answers = await all_calls(client)
    assert answers["/v1/turns/s.1"].json()["output"] == "hello"
    assert [message["content"] for message in answers["/v1/sessions/s"].json()["messages"]] == ["hi", "hello"]


@pytest.mark.parametrize(
    "usage", [b'{"input_tokens":1,"details":{"cached":3}}', b'{"cost":0.5}', b"[]", b"no"]
)
async def test_usage_of_another_shape_can_be_read(
    client: httpx.AsyncClient, store: Store, usage: bytes
) -> None:
    """It is shown if it is an object."""
    await post(client)
    await store.redis.hset(
        keys.turn(store.prefix, "default:s.1"), mapping={"usage": usage, "error_code": "odd"}
    )
    shown = (await all_calls(client))["/v1/turns/s.1"].json()
    assert shown["usage"] == (orjson.loads(usage) if usage.startswith(b"{") else None)
    assert shown["error"] == {"code": "odd", "message": ""}


@pytest.mark.parametrize("field", ["created_at", "metadata"])
async def test_a_session_without_a_member_can_be_read(
    client: httpx.AsyncClient, store: Store, field: str
) -> None:
    """The list has it, and the others."""
    for session in ("s", "other"):
        await post(client, session)
    await store.redis.hdel(keys.session(store.prefix, "default:s"), field)
    answers = await all_calls(client)
    assert [session["id"] for session in answers["/v1/sessions"].json()["sessions"]] == ["other", "s"]
    assert answers["/v1/sessions/s"].json()["metadata"] == {}


async def test_an_idempotency_record_may_say_more(client: httpx.AsyncClient, store: Store) -> None:
    """The same key gives the same turn, and is refused for another body."""
    key = {"Idempotency-Key": "k"}
    body = {"input": "hi"}
    await client.post("/v1/sessions/s/turns", json=body, headers=key)
    (name,) = await store.redis.keys(keys.idempotency(store.prefix, "default:s", "*"))
    await store.redis.append(name, " more of it")
    again = await client.post("/v1/sessions/s/turns", json=body, headers=key)
    assert (again.json()["id"], again.headers.get("idempotent-replayed")) == ("s.1", "true")
    other = await client.post("/v1/sessions/s/turns", json={"input": "ho"}, headers=key)
    assert other.json()["code"] == "idempotency_mismatch"


async def test_an_event_of_a_kind_that_is_not_known_is_passed_on(
    client: httpx.AsyncClient, store: Store
) -> None:
    """In the stream, in the session's stream and in JSON, with what else its entry may have."""
    await post(client)
    run = await claim(store)
    frame = (
        b'id: 3\nevent: turn.waiting\ndata: {"type":"turn.waiting","turn_id":"s.1","seq":3,"asks":[{}]}\n\n'
    )
    log = keys.log(store.prefix, "default:s.1")
    await store.redis.xadd(log, {"kind": "waiting", "e": frame, "more": "x"}, id="3-0")
    await store.redis.hset(keys.turn(store.prefix, "default:s.1"), "seq", 3)
    run.seq = 3
    await run.complete()
    async with (
        stream(client, "/v1/turns/s.1/events") as events,
        stream(client, "/v1/sessions/s/events", params={"after": "1,1:0"}) as of_session,
    ):
        kinds = ["turn.queued", "turn.in_progress", "turn.waiting", "turn.completed"]
        assert [event.kind for event in await events.rest()] == kinds
        assert [event.kind for event in await of_session.take(4)] == kinds
    page = (await client.get("/v1/turns/s.1/events", params={"follow": "false"})).json()
    assert page["events"][2] == {"type": "turn.waiting", "turn_id": "s.1", "seq": 3, "asks": [{}]}


@pytest.mark.parametrize(
    "missing", ["weight", "priority", "attempt", "losses", "deadline_at", "params", "score"]
)
async def test_a_worker_runs_a_turn_without_a_member(
    client: httpx.AsyncClient, store: Store, missing: str
) -> None:
    """It is claimed, handed back, claimed again and answered."""
    await post(client)
    await store.redis.hdel(keys.turn(store.prefix, "default:s.1"), missing)
    run = await claim(store)
    await store.hand_back(run.held, [])
    run = await claim(store)
    assert run.attempt == 2
    await run.complete()
    assert (await client.get("/v1/turns/s.1")).json()["status"] == "completed"


async def test_the_keepers_looks_pass_over_a_status_that_is_not_known(
    client: httpx.AsyncClient, store: Store
) -> None:
    """A turn of another release in this one's indexes stops no look, and its neighbours are seen to."""
    for session in ("s", "other"):
        await post(client, session)
    for _ in range(2):
        await claim(store)
    p = store.prefix
    await store.redis.hset(keys.turn(p, "default:s.1"), "status", "waiting")
    await store.redis.zadd(keys.leases(p, "turns"), {"default:s.1": 1, "default:other.1": 1})
    await store.redis.delete(keys.pulse(p))
    reaped = await store.reap("turns")
    assert reaped.requeued == ("default:other.1",)
    await store.redis.zadd(keys.deadlines(p, "turns"), {"default:s.1": 1, "default:other.1": 1})
    assert (await store.expire("turns"))[0] == ("default:other.1",)
    assert await store.redis.hget(keys.turn(p, "default:s.1"), "status") == b"waiting"
