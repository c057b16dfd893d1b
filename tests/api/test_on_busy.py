"""What becomes of a turn posted to a session that has one."""

import httpx
import pytest

from tests.api.clients import post
from tests.api.worker import claim
from turnpool.models import WorkerInfo
from turnpool.store.store import Store

pytestmark = pytest.mark.anyio


async def test_by_default_a_turn_queues_behind_the_one_before(
    client: httpx.AsyncClient, store: Store
) -> None:
    """The second can be claimed only when the first has ended."""
    await post(client)
    assert (await post(client)).status_code == 202
    run = await claim(store)
    assert (await store.claim("turns", "w2"))[0] is None
    await run.complete()
    assert (await claim(store)).id == "s.2"


@pytest.mark.parametrize("running", [False, True])
async def test_reject_is_a_conflict_that_names_the_turn_in_the_way(
    client: httpx.AsyncClient, store: Store, *, running: bool
) -> None:
    """409, and no turn is made, whether the first waits or runs."""
    await post(client)
    if running:
        await claim(store)
    rejected = await post(client, on_busy="reject")
    assert (rejected.status_code, rejected.json()["code"]) == (409, "session_busy")
    assert rejected.json()["turn_id"] == "s.1"
    assert len((await client.get("/v1/sessions/s/turns")).json()["turns"]) == 1


async def test_reject_accepts_where_nothing_is_in_the_way(client: httpx.AsyncClient, store: Store) -> None:
    """A session whose turns have ended is not busy."""
    await post(client, on_busy="reject")
    await (await claim(store)).complete()
    assert (await post(client, on_busy="reject")).status_code == 202


async def test_interrupt_cancels_the_running_turn_and_comes_next(
    client: httpx.AsyncClient, store: Store
) -> None:
    """The worker is told to stop, those that wait are cancelled, then the new one runs."""
    await post(client)
    run = await claim(store)
    await post(client)
    assert (await post(client, on_busy="interrupt")).json()["status"] == "queued"
    assert (await client.get("/v1/turns/s.2")).json()["status"] == "cancelled"
    worker = WorkerInfo("w1", ("turns",), 1, 1, draining=False)
    assert await store.renew(worker, [(run.scoped_id, run.attempt)]) == {"default:s.1/1": "cancelled"}
    await run.cancelled()
    assert (await claim(store)).id == "s.3"


async def test_interrupt_takes_the_place_of_a_waiting_turn(client: httpx.AsyncClient, store: Store) -> None:
    """One that waited is cancelled at once."""
    await post(client)
    await post(client, on_busy="interrupt")
    assert (await client.get("/v1/turns/s.1")).json()["status"] == "cancelled"
    assert (await claim(store)).id == "s.2"


async def test_another_word_is_refused(client: httpx.AsyncClient) -> None:
    """422 names the words there are."""
    answer = await post(client, on_busy="wait")
    assert answer.status_code == 422
    assert "'queue', 'reject' or 'interrupt'" in answer.json()["detail"]
