"""Prometheus' own tool takes the rules, and they fire when they should."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.monitoring.files import RULES, alerts

CASES = Path(__file__).parent / "rules_test.yaml"
PROMTOOL = shutil.which("promtool")

pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian, Ubuntu: apt install prometheus)"
)


def promtool(*arguments: str | Path) -> None:
    """Run promtool; it has to be content."""
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_valid() -> None:
    """`promtool check rules` finds nothing."""
    promtool("check", "rules", RULES)


@pytest.mark.slow
def test_alerts_fire_when_they_should() -> None:
    """The cases of rules_test.yaml: what fires, when, and what does not."""
    promtool("test", "rules", CASES)


def test_every_alert_has_a_case() -> None:
    """Each fires in at least one of them."""
    told = set(re.findall(r'alertname="(\w+)"', CASES.read_text()))
    assert told == {alert["alert"] for alert in alerts()}
