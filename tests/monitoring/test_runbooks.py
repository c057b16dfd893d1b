"""Alerts and the manual belong together."""

import re

from tests.monitoring.files import MANUAL, alerts

BASE = "https://github.com/turnpool/turnpool/blob/main/docs/operations.md#"


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    """The link of an alert leads to the heading of its name, and no heading is left over."""
    headings = re.findall(r"^### (Turnpool\w+)$", MANUAL.read_text(), re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(headings) == {alert["alert"] for alert in alerts()}
    for alert in alerts():
        # GitHub's anchor of a heading of one word is the word in lower case.
        assert alert["annotations"]["runbook_url"] == BASE + alert["alert"].lower()


def test_every_runbook_says_what_to_do() -> None:
    """What it means, what to look at, what to do."""
    sections = re.split(r"^### ", MANUAL.read_text(), flags=re.MULTILINE)[1:]
    runbooks = [section for section in sections if section.startswith("Turnpool")]
    assert runbooks
    for runbook in runbooks:
        for part in ("**Means.** ", "**Look.** ", "**Do.** "):
            assert part in runbook, runbook.splitlines()[0]
