"""The image and compose.yaml on a real engine. Opt-in: TURNPOOL_ENGINE=1, or engine.sh beside this file.

The tests share one installation, and each leaves it with one worker.
"""

import os
from collections.abc import Iterator

import httpx
import pytest

from tests.compose.stack import Container, Stack, build, docker, run, started, wait_for
from tests.compose.tools import REPO

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.environ.get("TURNPOOL_ENGINE") != "1", reason="needs an engine: TURNPOOL_ENGINE=1"),
]

IMAGE = "turnpool:0.1.0"
WORDS = " ".join(f"w{k}" for k in range(40))
FOUR_SECONDS = {"tokens": 40, "ttft_ms": 100, "itl_ms": 100}


@pytest.fixture(scope="module")
def image() -> str:
    """The image, built of this checkout."""
    build("turnpool", IMAGE)
    return IMAGE


@pytest.fixture(scope="module")
def stack(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One installation for all tests."""
    assert image
    yield from started(tmp_path_factory.mktemp("stack"))


def check(stack: Stack, turn_ids: list[str], seconds: float = 60) -> list[str]:
    """All turns were answered in full; gives why some were begun again."""
    turns = stack.ended(turn_ids, seconds)
    assert [turn["status"] for turn in turns] == ["completed"] * len(turn_ids)
    assert {str(turn["output"]).strip() for turn in turns} == {WORDS}
    return [reason for turn in turns if turn["attempt"] > 1 for reason in stack.restarts(turn["id"])]


def workers(stack: Stack) -> list[Container]:
    """Those that run."""
    return [one for one in stack.containers("worker") if one.status == "running"]


def test_a_turn_is_answered(stack: Stack) -> None:
    """Up, a turn, its answer."""
    assert check(stack, stack.post_turns("first", 1, **FOUR_SECONDS)) == []


def test_no_door_is_open_without_its_secret(stack: Stack) -> None:
    """API and Flower refuse; the key and the password that were made are taken."""
    assert httpx.get(f"{stack.api.base_url}/v1/pool", trust_env=False).status_code == httpx.codes.UNAUTHORIZED
    tasks = f"{stack.flower}/api/tasks"
    assert httpx.get(tasks, trust_env=False).status_code == httpx.codes.UNAUTHORIZED
    login = ("turnpool", stack.secret("turnpool_flower_password"))
    assert httpx.get(tasks, auth=login, trust_env=False).status_code == httpx.codes.OK
    redis = stack.containers("redis")[0].id
    assert "NOAUTH" in docker("exec", redis, "sh", "-c", "valkey-cli dbsize 2>&1")
    assert stack.secret("turnpool_redis_password") not in docker("top", redis)


def test_a_container_can_write_nothing_but_its_scratch(stack: Stack) -> None:
    """It is not root either."""
    for service in ("api", "worker", "flower"):
        one = stack.containers(service)[0].id
        assert docker("exec", one, "id", "-u").strip() == "10001"
        script = "import pathlib; pathlib.Path('/tmp/x').touch(); pathlib.Path('/opt/turnpool/x').touch()"
        with pytest.raises(AssertionError, match="Read-only file system: '/opt/turnpool/x'"):
            docker("exec", one, "python", "-c", script)


def test_a_killed_worker_loses_no_turn(stack: Stack) -> None:
    """Scaled to three; one is killed in the middle, the others take its turns over."""
    stack.up("--scale", "worker=3", "--no-recreate")
    assert len(workers(stack)) == 3
    turn_ids = stack.post_turns("kill", 30, **FOUR_SECONDS)
    wait_for(lambda: stack.running() == len(turn_ids), 20)
    docker("kill", "--signal", "KILL", workers(stack)[0].id)
    assert set(check(stack, turn_ids)) == {"worker_lost"}
    stack.up("--scale", "worker=1")


def test_workers_stopped_one_after_another_lose_nothing(stack: Stack) -> None:
    """Each ends its turns and exits with 0, while new turns are answered; none is begun again."""
    stack.up("--scale", "worker=3", "--no-recreate")
    old = workers(stack)
    assert len(old) == 3
    turn_ids = []
    for number, one in enumerate(old):
        turn_ids += stack.post_turns(f"roll-{number}", 10, **FOUR_SECONDS)
        assert one.grace >= 120
        docker("stop", "--time", str(one.grace), one.id)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", one.id).strip() == "0"
        docker("rm", one.id)
        stack.up("--scale", "worker=3", "--no-recreate")
    assert check(stack, turn_ids) == []
    stack.up("--scale", "worker=1")


def test_an_update_of_all_workers_at_once_loses_nothing(stack: Stack) -> None:
    """`up` with another setting replaces them; those that run end first."""
    turn_ids = stack.post_turns("update", 10, **FOUR_SECONDS)
    wait_for(lambda: stack.running() == len(turn_ids), 20)
    before = {one.id for one in workers(stack)}
    stack.up(TURNPOOL_CONCURRENCY="20")
    assert not before & {one.id for one in workers(stack)}
    assert check(stack, turn_ids) == []


def test_turns_outlive_a_restart_of_redis(stack: Stack) -> None:
    """It is stopped in order, and has all of it when it is back."""
    [first] = stack.post_turns("restart", 1, **FOUR_SECONDS)
    check(stack, [first])
    stack.compose("restart", "redis")
    stack.up()
    assert stack.turn(first)["status"] == "completed"
    check(stack, stack.post_turns("after", 1, **FOUR_SECONDS))


def test_an_image_of_ones_own_brings_its_agent(stack: Stack, image: str) -> None:
    """The example's two lines are enough."""
    assert image in run("cat", "compose/example/Dockerfile")
    docker("build", "--tag", "my-turnpool:1", "compose/example")
    stack.up(TURNPOOL_IMAGE="my-turnpool:1", TURNPOOL_AGENTS="shout=shout:agent")
    answer = stack.api.post("/chat/loud", json={"message": "hello there"}, timeout=30)
    assert answer.json()["response"].strip() == "HELLO THERE"


def test_the_local_model_answers(stack: Stack) -> None:
    """Profile `local` with the settings of example.env."""
    build("model", "turnpool-model:0.1.0")
    lines = (REPO / "compose" / "example.env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert variables["COMPOSE_PROFILES"] == "local"
    stack.up(**variables)
    answer = stack.api.post("/chat/model", json={"message": "Why is the sea salty?"}, timeout=60)
    assert answer.status_code == httpx.codes.OK, answer.text
    assert len(answer.json()["response"].split()) > 3


def test_all_of_it_ends_in_order(stack: Stack) -> None:
    """`stop` ends every process with 0, well before any of them would be killed."""
    stack.compose("stop")
    for service in ("redis", "api", "worker", "flower"):
        assert {(one.status, one.exit_code) for one in stack.containers(service)} == {("exited", 0)}, service
    stack.up()
