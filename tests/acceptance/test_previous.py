"""The previous commit's API and worker beside the current ones, as in a rolling upgrade."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.acceptance.processes import Api, Pool, Process
from tests.acceptance.sse import Answer, check_dense, post_turn, request, run_turn, text_of, words
from tests.acl import ENABLED
from tests.conftest import wait_until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(180),
    pytest.mark.skipif(ENABLED, reason="the rights are those that this release needs"),
]

# The oldest commit with this schema whose readers ignore what they do not know. Releases move it.
PREVIOUS = "903213116ffdfb37113c842a08261029b069dc07"
MODULES = {"turnpool-api": "api.main", "turnpool-worker": "workers.main"}
# Its agent chat needs a library that is no longer installed.
OLD_AGENTS = "simulated=workers.agents.simulated:agent"


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of the previous commit."""
    folder = tmp_path_factory.mktemp("previous")
    found = subprocess.run(
        ["git", "archive", PREVIOUS, "turnpool", "api", "workers"],  # noqa: S607 - whichever git there is
        capture_output=True, check=False,
    )  # fmt: skip
    if found.returncode:
        assert not os.environ.get("CI"), found.stderr.decode()
        pytest.skip(f"the history has no commit {PREVIOUS}")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(previous: Path) -> tuple[type[Api], type[Process]]:
    """API and worker of the previous commit."""

    def command(_: object, name: str) -> list[str]:
        code = (
            f"import os, sys; sys.path.insert(0, {str(previous)!r}); "
            f"os.environ['TURNPOOL_AGENTS'] = {OLD_AGENTS!r}; from {MODULES[name]} import main; main()"
        )
        return [sys.executable, "-P", "-c", code]

    return type("OldApi", (Api,), {"command": command}), type("OldWorker", (Process,), {"command": command})


async def old_api(pool: Pool, kind: type[Api]) -> Api:
    """Start an API of the previous commit and wait until it listens."""
    api = pool.start(kind, "turnpool-api")

    async def listens() -> bool:
        return api.port > 0

    await wait_until(listens, 20)
    return api


def turn(tokens: int = 20, **more: object) -> dict[str, object]:
    """A turn for the simulated agent."""
    return {"input": "hello", "agent": "simulated", "params": {"tokens": tokens}, **more}


async def rest_of(answer: Answer, tokens: int) -> None:
    """Read a stream to its end, which must be whole."""
    frames = [frame async for frame in answer.frames()]
    check_dense(frames)
    assert frames[-1].event == "turn.completed"
    assert frames[-1].data["output"] == text_of(frames) == words(tokens)


async def test_turns_of_either_api_run_on_either_worker(
    pool: Pool, old: tuple[type[Api], type[Process]]
) -> None:
    """Both APIs accept, both workers run, both APIs stream and show what the other release wrote."""
    apis = [await pool.api(), await old_api(pool, old[0])]
    for kind in (Process, old[1]):
        worker = await pool.worker(kind=kind)
        for n, api in enumerate(apis):
            session = f"{kind.__name__}-{n}"
            for _ in range(2):
                frames = await run_turn(api.port, session, turn())
                check_dense(frames)
                assert text_of(frames) == words(20)
            for reader in apis:
                shown = await (await request(reader.port, "GET", f"/v1/turns/{session}.2")).body()
                assert (shown["status"], shown["output"]) == ("completed", words(20))
                listed = await (await request(reader.port, "GET", f"/v1/sessions/{session}")).body()
                assert len(listed["messages"]) == 4
                assert (await (await request(reader.port, "GET", "/v1/pool")).body())["workers"]
        worker.signal(signal.SIGTERM)
        assert await worker.exit() == 0


@pytest.mark.parametrize("dies", ["old", "new"])
async def test_a_worker_of_one_release_takes_over_from_the_other(
    pool: Pool, old: tuple[type[Api], type[Process]], dies: str
) -> None:
    """A kill -9 in mid-answer: the stream goes on from the next token."""
    kinds = {"old": old[1], "new": Process}
    api = await pool.api()
    first = await pool.worker(kind=kinds[dies])
    streams = [await post_turn(api.port, f"s{n}", turn(150)) for n in range(10)]
    readers = [asyncio.create_task(rest_of(stream, 150)) for stream in streams]

    async def running() -> bool:
        return (await pool.store.queue_state("turns")).running == 10

    await wait_until(running, 20)
    await pool.worker(kind=kinds["new" if dies == "old" else "old"])
    first.signal(signal.SIGKILL)
    await asyncio.gather(*readers)


@pytest.mark.parametrize("ends", ["old", "new"])
async def test_a_deploy_hands_turns_over_between_releases(
    pool: Pool, old: tuple[type[Api], type[Process]], ends: str
) -> None:
    """SIGTERM without grace time: the other release's worker goes on."""
    kinds = {"old": old[1], "new": Process}
    api = await old_api(pool, old[0])
    first = await pool.worker(kind=kinds[ends], DRAIN_SECONDS="0")
    streams = [await post_turn(api.port, f"s{n}", turn(150)) for n in range(10)]
    readers = [asyncio.create_task(rest_of(stream, 150)) for stream in streams]

    async def running() -> bool:
        return (await pool.store.queue_state("turns")).running == 10

    await wait_until(running, 20)
    await pool.worker(kind=kinds["new" if ends == "old" else "old"])
    first.signal(signal.SIGTERM)
    await asyncio.gather(*readers)
    assert await first.exit() == 0
