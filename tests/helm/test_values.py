"""values.yaml, its schema, its README, and turnpool's settings, which all have to agree."""

import json
from typing import Any

import yaml

from tests.helm.readme import FILE, readme
from tests.helm.tools import CHART
from turnpool.settings import Settings

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())

# Settings that the chart sets from other values, or by files.
ELSEWHERE = {
    "redis_url", "redis_password", "sentinel_password", "broker_url", "broker_password", "secrets_dir",
    "api_keys", "admin_key",
    "llm_api_key", "agents", "queues", "concurrency", "drain_seconds", "pod_deletion_cost", "host", "port",
    "metrics_port", "tracing", "namespace", "open", "allowed_hosts", "api_drain_seconds",
}  # fmt: skip


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """What a reference stands for."""
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


def uncovered(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> list[str]:
    """Paths of values that the schema does not name."""
    schema = resolve(schema)
    found = []
    for key, value in values.items():
        if key not in schema.get("properties", {}):
            found.append(path + key)
        elif isinstance(value, dict) and "properties" in resolve(schema["properties"][key]):
            found += uncovered(value, schema["properties"][key], f"{path}{key}.")
    return found


def invented(schema: dict[str, Any], values: Any, path: str = "") -> list[str]:
    """Paths that the schema allows and values.yaml does not show."""
    found = []
    for key, inner in resolve(schema).get("properties", {}).items():
        if not isinstance(values, dict) or key not in values:
            found.append(path + key)
        elif isinstance(values[key], dict) and values[key]:
            found += invented(inner, values[key], f"{path}{key}.")
    return found


def open_objects(schema: Any, path: str = "") -> list[str]:
    """Places of the schema that name properties and let others pass."""
    if isinstance(schema, list):
        return [place for index, each in enumerate(schema) for place in open_objects(each, f"{path}/{index}")]
    if not isinstance(schema, dict):
        return []
    found = [path] if "properties" in schema and schema.get("additionalProperties") is not False else []
    return found + [place for key, each in schema.items() for place in open_objects(each, f"{path}/{key}")]


def test_the_schema_covers_every_value() -> None:
    """Each value of values.yaml has its place in the schema."""
    assert uncovered(VALUES, SCHEMA) == []


def test_the_schema_has_no_value_of_its_own() -> None:
    """Each value of the schema is shown in values.yaml; `global` is Helm's, these fields are Kubernetes'."""
    kubernetes = (".behavior.", ".resources.")
    own = [path for path in invented(SCHEMA, VALUES) if not any(part in path for part in kubernetes)]
    assert own == ["global"]


def test_the_schema_is_strict() -> None:
    """No object of the schema lets a misspelt field pass."""
    assert open_objects(SCHEMA) == []


def test_settings_are_turnpools() -> None:
    """Each setting is one of turnpool's, and turnpool has none that the chart cannot set."""
    snake = {"".join(f"_{c.lower()}" if c.isupper() else c for c in name) for name in VALUES["settings"]}
    assert snake | ELSEWHERE == set(Settings.model_fields)


def test_bounds_are_turnpools() -> None:
    """The schema's bounds of a setting are those of turnpool."""
    bounds = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum"}
    for name, schema in SCHEMA["properties"]["settings"]["properties"].items():
        field = Settings.model_fields["".join(f"_{c.lower()}" if c.isupper() else c for c in name)]
        wanted = {
            bounds[key]: getattr(limit, key)
            for limit in field.metadata
            for key in bounds
            if getattr(limit, key, None) is not None
        }
        assert wanted == {key: schema[key] for key in bounds.values() if key in schema}, name


def test_the_readme_is_made_from_the_values() -> None:
    """README.md of the chart is what `python -m tests.helm.readme --write` writes."""
    assert FILE.read_text() == readme()


def test_every_value_is_explained() -> None:
    """No line of the README's table is without words."""
    lines = [line for line in readme().splitlines() if line.startswith("| `")]
    assert len(lines) > 150
    assert not [line for line in lines if line.endswith("|  |")]


def test_the_chart_is_of_this_version() -> None:
    """The chart installs the turnpool that it comes with."""
    project = (CHART.parents[1] / "pyproject.toml").read_text()
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'\nversion = "{chart["appVersion"]}"\n' in project
