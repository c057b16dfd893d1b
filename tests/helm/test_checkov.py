"""checkov on the chart with everything on: what it finds is repaired or has its reason in checkov.yaml."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helm.cases import EVERYTHING
from tests.helm.tools import template, unavailable

SKIPS = Path(__file__).with_name("checkov.yaml")
SECONDS = 120


def checkov() -> str:
    """Path of checkov, which has an environment of its own; else that of the system."""
    path = Path(sys.prefix) / "checkov" / "bin" / "checkov"
    if not path.exists():
        unavailable("checkov is not installed: requirements/checkov.txt into .venv/checkov")
    return str(path)


def matches(skip: dict[str, str], check: str, resource: str) -> bool:
    """Whether it gives the reason of this failed check."""
    return skip["check"] == check and re.fullmatch(skip["resource"], resource) is not None


@pytest.mark.slow
@pytest.mark.timeout(SECONDS)
def test_checkov(tmp_path: Path) -> None:
    """Every failed check has a reason, and every reason a failed check."""
    (tmp_path / "chart.yaml").write_text(template(EVERYTHING))
    done = subprocess.run(
        [checkov(), "--file", "chart.yaml", "--framework", "kubernetes", "--skip-download", "-o", "json"],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 100
    failed = {(each["check_id"], each["resource"]) for each in report["results"]["failed_checks"]}
    skips = yaml.safe_load(SKIPS.read_text())
    used = {each: [skip["check"] for skip in skips if matches(skip, *each)] for each in failed}
    assert not [each for each, reasons in used.items() if not reasons]
    assert {skip["check"] for skip in skips} == {check for reasons in used.values() for check in reasons}
    assert all(skip["reason"] for skip in skips)
