"""The built wheel outside of a clone, in a project with packages `api` and `workers` of its own."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.acceptance.sse import check_dense, run_turn, text_of
from tests.acceptance.test_up import start

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180), pytest.mark.acceptance]

ROOT = Path(__file__).parents[2]
SCRIPTS = ("turnpool", "turnpool-api", "turnpool-worker", "turnpool-flower")
# Libraries of the extras, of which one each is missing; and what the wheel brings.
LACKING = ("uvicorn", "celery", "turnpool", "__pycache__")
AGENT = """
from collections.abc import AsyncIterator
from turnpool import Turn

async def greet(turn: Turn) -> AsyncIterator[str]:
    yield "Hello, "
    yield turn.input[-1]["content"]
"""


def run(*command: str | Path) -> str:
    """Run a command to its end; gives what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path, *, with_extras: bool) -> Path:
    """Install the wheel outside of the clone; gives its scripts. The libraries are this environment's."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    uv = Path(sys.executable).with_name("uv")
    python = folder / "bin/python"
    run(uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    libraries = Path(sysconfig.get_path("purelib"))
    if with_extras:
        # The .pth files there, by which this source is installed, are not read.
        (site / "libraries.pth").write_text(f"{libraries}\n")
    else:
        for found in libraries.iterdir():
            if not found.name.startswith(LACKING) and found.suffix != ".pth":
                (site / found.name).symlink_to(found)
    return folder / "bin"


def test_the_wheel_has_three_packages(wheel: Path) -> None:
    """With their types and the scripts in Lua, and no name that others have."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    packages = {"turnpool", "turnpool_api", "turnpool_workers"}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == packages
    for package in packages:
        assert f"{package}/py.typed" in names
    assert "turnpool/lua/claim.lua" in names


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_a_script_without_its_extra_says_what_to_install(wheel: Path, tmp_path: Path, script: str) -> None:
    """In one line, and exits with 2."""
    scripts = install(wheel, tmp_path / "venv", with_extras=False)
    done = subprocess.run([scripts / script], capture_output=True, text=True, check=False, cwd=tmp_path)
    extra = "api" if script == "turnpool-api" else "workers"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"turnpool: {script} needs more: pip install 'turnpool[{extra}]'\n"


async def test_it_runs_in_a_project_with_packages_of_the_old_names(wheel: Path, tmp_path: Path) -> None:
    """`PYTHONPATH=. turnpool up` with an agent of the project answers a turn."""
    scripts = install(wheel, tmp_path / "venv", with_extras=True)
    for script in SCRIPTS:
        assert run(scripts / script, "--version").startswith("turnpool 0.")
    project = tmp_path / "project"
    for package in ("api", "workers"):
        (project / package).mkdir(parents=True)
        (project / package / "__init__.py").write_text("raise RuntimeError('of the project')")
    (project / "my_agents.py").write_text(AGENT)
    where = run(scripts / "python", "-c", "import turnpool_api; print(turnpool_api.__file__)")
    assert where.startswith(str(tmp_path))
    up = await start(
        project, turnpool=scripts / "turnpool", PYTHONPATH=".", TURNPOOL_AGENTS="greet=my_agents:greet"
    )
    try:
        frames = await run_turn(up.ports["port"], "demo", {"input": "world"})
        check_dense(frames)
        assert text_of(frames) == "Hello, world"
        assert await up.end() == 0
    finally:
        up.process.kill()
        up.process.wait()
