"""The checker itself finds what is wrong."""

import pytest

from tests.monitoring.files import Query
from tests.monitoring.promql import Metrics, problems

METRICS: Metrics = {
    "a_total": frozenset({"queue", "code"}),
    "b_total": frozenset({"queue"}),
    "h_bucket": frozenset({"queue", "le"}),
}


@pytest.mark.parametrize(
    "expression",
    [
        'sum by (code) (rate(a_total{queue="q"}[5m]))',
        "histogram_quantile(0.5, sum by (le, queue) (rate(h_bucket[5m]))) and on (queue) a_total",
        "sum by (queue) (a_total) / sum by (queue) (b_total) > 0.1 * 2",
        "absent(b_total)",
    ],
)
def test_right_expressions_pass(expression: str) -> None:
    """Nothing is found where nothing is wrong."""
    assert problems(Query("here", expression), METRICS) == []


@pytest.mark.parametrize(
    ("expression", "shown", "found"),
    [
        ("rate(c_total[5m])", (), "no metric c_total"),
        ('b_total{code="x"}', (), "b_total has no label code"),
        ("sum by (code) (b_total)", (), "an aggregation has no label code"),
        ("a_total and on (code) b_total", (), "matching has no label code"),
        ("sum by (code) (a_total) / sum by (queue) (b_total)", (), "the sides have other labels"),
        (
            "histogram_quantile(0.5, sum by (queue) (rate(h_bucket[5m])))",
            (),
            "histogram_quantile has no label le",
        ),
        ("sum by (queue) (b_total)", ("code",), "it shows label code"),
    ],
)
def test_wrong_expressions_are_told(expression: str, shown: tuple[str, ...], found: str) -> None:
    """Each kind of mistake is named, with its place."""
    (problem,) = problems(Query("here", expression, shown), METRICS)
    assert problem.startswith(f"here: {found}")
