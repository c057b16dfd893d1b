"""docs/kubernetes.md: its values are taken by the chart, and what it says of defaults is so."""

import re
from typing import Any

import pytest
import yaml

from tests.helm.cases import EMBEDDED, over
from tests.helm.tools import CHART, REPO, refusal, render

TEXT = (REPO / "docs" / "kubernetes.md").read_text()
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
EXAMPLES = [block for block in BLOCKS if set(block) <= set(VALUES)]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_taken(example: dict[str, Any]) -> None:
    """Each block of values renders, with the embedded Redis where it names none."""
    render(example if "redis" in example else over(EMBEDDED, example))


def test_there_are_examples() -> None:
    """The blocks are found: the first installation, the pools."""
    assert len(EXAMPLES) == 2


def test_names_of_values_exist() -> None:
    """Every value that the text names in full is one of the chart."""
    top = "|".join(VALUES)
    for path in re.findall(rf"`((?:{top})(?:\.\w+)+)`", TEXT):
        value: Any = VALUES
        for key in path.split("."):
            assert key in value, path
            value = value[key]


def test_the_refusal_is_quoted() -> None:
    """The message that the text shows is the one that helm gives."""
    values = over(EMBEDDED, {"workers": {"defaults": {"terminationGracePeriodSeconds": 60}}})
    words = "60 is too short, turns would be killed: at least drainSeconds + 10 = 120"
    assert words in refusal(values)
    assert words in TEXT
