"""What the dashboard and the alerts ask Prometheus."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "helm/turnpool/files/dashboard.json"
RULES = ROOT / "helm/turnpool/files/rules.yaml"
MANUAL = ROOT / "docs/operations.md"

# What Grafana puts in before it asks.
VARIABLES = {"$__rate_interval": "5m", "$namespace": ".*", "$pool": ".*", "$queue": ".*"}
LEGEND_LABEL = re.compile(r"{{\s*(\w+)\s*}}")
ALERT_LABEL = re.compile(r"\$labels\.(\w+)")
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


class Query(NamedTuple):
    """An expression, where it stands, and the labels that the text beside it shows."""

    where: str
    expression: str
    shown: tuple[str, ...] = ()


def dashboard() -> dict[str, Any]:
    """The Grafana dashboard."""
    content: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return content


def panels() -> list[dict[str, Any]]:
    """Its panels, without the rows' titles."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def groups() -> list[dict[str, Any]]:
    """The groups of rules."""
    content: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return content


def alerts() -> list[dict[str, Any]]:
    """The alerts of all groups."""
    return [rule for group in groups() for rule in group["rules"]]


def dashboard_queries() -> list[Query]:
    """What the panels and the variables ask."""
    found = [
        Query(
            f"panel {panel['title']!r}",
            _filled(target["expr"]),
            tuple(LEGEND_LABEL.findall(target["legendFormat"])),
        )
        for panel in panels()
        for target in panel["targets"]
    ]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            match = LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert match, variable["query"]
            found.append(Query(f"variable {variable['name']!r}", _filled(match[1]), (match[2],)))
    return found


def alert_queries() -> list[Query]:
    """What the alerts ask."""
    return [
        Query(
            f"alert {alert['alert']}",
            alert["expr"],
            tuple(ALERT_LABEL.findall(" ".join(alert["annotations"].values()))),
        )
        for alert in alerts()
    ]


def queries() -> list[Query]:
    """All of them."""
    return dashboard_queries() + alert_queries()


def _filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression
