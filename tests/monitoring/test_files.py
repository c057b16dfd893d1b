"""The dashboard and the rules as files: complete, tidy, and in the words of the code."""

import itertools
import re

import promql_parser as ql
import pytest

from tests.monitoring.files import ROOT, alert_queries, alerts, dashboard, groups, panels, queries
from tests.monitoring.promql import aggregations, selectors

SEVERITIES = {"critical", "warning"}
# Labels whose values are not words of the code.
FREE = {"namespace", "pool", "queue", "agent", "job", "alertname", "alertstate", "status"}
POOL_WIDE = re.compile(
    r"turnpool_queue_(depth|ready|running|oldest_wait_seconds|slots|workers|suspects|unserved|hung_workers|limit|deadline_seconds)"
)


def test_every_expression_parses() -> None:
    """Prometheus would take each of them."""
    for query in queries():
        assert isinstance(ql.parse(query.expression), ql.Expr), query.where


def test_pool_wide_gauges_are_never_added_up() -> None:
    """Every API of a namespace tells them alike: an aggregation right around one is `max`, by namespace."""
    for query in queries():
        for match in re.finditer(
            r"(\w+)( by \([^)]*\))?\s*\((?:(?:deriv|max_over_time)\()?(turnpool_queue_\w+)", query.expression
        ):
            if POOL_WIDE.fullmatch(match[3]):
                assert match[1] == "max", f"{query.where}: {match[0]}"
                assert not match[2] or "namespace" in match[2], f"{query.where}: {match[0]}"


def test_every_selector_has_its_pool() -> None:
    """Of two pools in one Prometheus each is looked at by itself; only what lists pools selects none."""
    checked = 0
    for query in queries():
        if query.where in {"variable 'pool'", "variable 'namespace'"}:
            continue
        for selector in selectors(query.expression):
            names = {matcher.name for matcher in selector.matchers.matchers}
            assert "pool" in names, f"{query.where}: {selector.name}"
            checked += 1
    assert checked > 100


def test_every_alert_is_of_one_pool() -> None:
    """No aggregation and no matching of an alert puts pools together."""
    for query in alert_queries():
        for labels in aggregations(query.expression):
            assert labels == set() or {"namespace", "pool"} <= labels, f"{query.where}: {labels}"


def test_the_dashboard_shows_one_pool() -> None:
    """The variable has one value at a time: sums and quantiles over several pools would hide the bad one."""
    (pool,) = [each for each in dashboard()["templating"]["list"] if each["name"] == "pool"]
    assert not pool["multi"]
    assert not pool["includeAll"]


def test_alerts_are_complete() -> None:
    """Each has a time, a severity, a summary, a description and a runbook, and comes once."""
    for alert in alerts():
        assert set(alert) == {"alert", "expr", "for", "labels", "annotations"}, alert
        assert set(alert["labels"]) == {"severity"}
        assert alert["labels"]["severity"] in SEVERITIES
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert all(alert["annotations"].values())
        assert alert["alert"].startswith("Turnpool")
    names = [alert["alert"] for alert in alerts()]
    assert len(names) == len(set(names))
    assert len({group["name"] for group in groups()}) == len(groups())


def test_label_values_are_words_of_the_code() -> None:
    """An alert on a reason or code that nothing ever tells would never fire."""
    code = "".join(
        path.read_text()
        for folder in ("turnpool", "api", "workers")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".lua"}
    )
    checked = set()
    for query in queries():
        for selector in selectors(query.expression):
            for matcher in selector.matchers.matchers:
                if matcher.name not in FREE:
                    for value in matcher.value.split("|"):
                        checked.add(value)
                        assert re.search(f"""["']{value}["']""", code), f"{query.where}: {value}"
    assert "worker_lost" in checked


def test_panels_say_what_is_normal() -> None:
    """Each panel has a title of its own, a description, a unit and the dashboard's data source."""
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles))
    for panel in panels():
        assert "Normal: " in panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for place in (panel, *panel["targets"]):
            assert place["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


def test_panels_do_not_overlap() -> None:
    """Grafana would move them, and every export would differ from this file."""
    everything = dashboard()["panels"]
    places = [panel["gridPos"] for panel in everything]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    assert [panel["id"] for panel in everything] == list(range(1, len(everything) + 1))


@pytest.mark.parametrize("question", ["Healthy", "Slow", "Why"])
def test_dashboard_answers_the_three_questions(question: str) -> None:
    """Each has a row, and the rows have panels."""
    rows = [panel for panel in dashboard()["panels"] if panel["type"] == "row"]
    (row,) = [row for row in rows if row["title"].startswith(question)]
    later = [other["gridPos"]["y"] for other in rows if other["gridPos"]["y"] > row["gridPos"]["y"]]
    inside = [p for p in panels() if row["gridPos"]["y"] < p["gridPos"]["y"] < min(later, default=10_000)]
    assert len(inside) >= 5
