"""Prometheus' own tool takes the rules, and they fire when they should."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.monitoring.files import RULES, alerts
from tests.monitoring.pools import is_of_a_pool, two_pools

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


@pytest.mark.slow
@pytest.mark.parametrize(("bad", "good"), [("a", "b"), ("b", "a")])
def test_a_healthy_pool_hides_no_other(tmp_path: Path, bad: str, good: str) -> None:
    """Each case again, in one of two pools; the other has the same series, and they are well."""
    # As text: YAML would take 0x20, which is zero twenty times, for a number.
    cases = yaml.load(CASES.read_text(), yaml.BaseLoader)  # noqa: S506 - it makes texts only
    cases["rule_files"] = [str(RULES)]
    cases["tests"] = [two_pools(case, bad, good) for case in cases["tests"] if is_of_a_pool(case)]
    file = tmp_path / "two_pools.yaml"
    file.write_text(yaml.safe_dump(cases))
    promtool("test", "rules", file)


def test_every_alert_has_a_case() -> None:
    """Each fires in at least one of them."""
    told = set(re.findall(r'alertname="(\w+)"', CASES.read_text()))
    assert told == {alert["alert"] for alert in alerts()}
