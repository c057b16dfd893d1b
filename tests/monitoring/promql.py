"""Checks expressions against the metrics that exist and their labels."""

from collections.abc import Iterator

import promql_parser as ql

from tests.monitoring.files import Query

# Labels that a scrape adds to what a process tells.
TARGET = frozenset({"instance", "job", "namespace", "pod"})
# Metrics that Prometheus makes itself.
OWN = {"ALERTS": frozenset({"alertname", "alertstate", "pool"}), "up": frozenset({"pool"})}
# Their result keeps nothing of what they are given.
LABELLESS = {"absent", "vector", "scalar", "time"}

Metrics = dict[str, frozenset[str]]


def problems(query: Query, metrics: Metrics) -> list[str]:
    """What is wrong with a query, given the labels of every metric (of its samples' names)."""
    check = Check(metrics)
    labels = check.labels(ql.parse(query.expression))
    missing = [
        f"it shows label {label}, which the result has not" for label in query.shown if label not in labels
    ]
    return [f"{query.where}: {problem}" for problem in dict.fromkeys(check.problems + missing)]


def selectors(expression: str) -> Iterator[ql.VectorSelector]:
    """The selectors of an expression."""
    found: list[ql.VectorSelector] = []

    def visit(part: ql.Expr) -> None:
        if isinstance(part, ql.VectorSelector):
            found.append(part)
        elif isinstance(part, ql.MatrixSelector):
            found.append(part.vector_selector)

    ql.walk(ql.parse(expression), visit)
    yield from dict.fromkeys(found)


def aggregations(expression: str) -> Iterator[set[str]]:
    """The labels of each `by` and each `on`; none of `or on ()`."""
    found: list[set[str]] = []

    def visit(part: ql.Expr) -> None:
        if isinstance(part, ql.AggregateExpr):
            found.append(set(part.modifier.labels) if part.modifier else {"no by"})
        elif isinstance(part, ql.BinaryExpr) and part.modifier and part.modifier.matching:
            found.append(set(part.modifier.matching.labels))

    ql.walk(ql.parse(expression), visit)
    yield from found


class Check:
    """Walks an expression; collects what is wrong with it."""

    def __init__(self, metrics: Metrics) -> None:
        self.problems: list[str] = []
        self._metrics = metrics | OWN

    def labels(self, part: ql.Expr) -> frozenset[str]:
        """Labels of the result of a part."""
        match part:
            case ql.VectorSelector():
                labels = self._selector(part)
            case ql.MatrixSelector():
                labels = self._selector(part.vector_selector)
            case ql.ParenExpr() | ql.UnaryExpr() | ql.SubqueryExpr():
                labels = self.labels(part.expr)
            case ql.Call():
                labels = self._call(part)
            case ql.AggregateExpr():
                labels = self._aggregate(part)
            case ql.BinaryExpr():
                labels = self._binary(part)
            case ql.NumberLiteral() | ql.StringLiteral():
                labels = frozenset()
            case _:
                raise TypeError(f"unknown part of an expression: {part}")
        return labels

    def _selector(self, selector: ql.VectorSelector) -> frozenset[str]:
        name = selector.name or ""
        if name not in self._metrics:
            self.problems.append(f"no metric {name}")
            # Unknown: what follows from it is not told a second time.
            return TARGET | frozenset(matcher.name for matcher in selector.matchers.matchers)
        labels = self._metrics[name] | TARGET
        self._need([matcher.name for matcher in selector.matchers.matchers], labels, name)
        return labels

    def _call(self, call: ql.Call) -> frozenset[str]:
        given = [self.labels(argument) for argument in call.args]
        labels = frozenset[str]().union(*given)
        if call.func.name in LABELLESS:
            return frozenset()
        if call.func.name == "histogram_quantile":
            self._need(["le"], labels, "histogram_quantile")
            return labels - {"le"}
        return labels

    def _aggregate(self, part: ql.AggregateExpr) -> frozenset[str]:
        labels = self.labels(part.expr)
        if part.modifier is None:
            return frozenset()
        named = frozenset(part.modifier.labels)
        self._need(sorted(named), labels, "an aggregation")
        return named if part.modifier.type == ql.AggModifierType.By else labels - named

    def _binary(self, part: ql.BinaryExpr) -> frozenset[str]:
        sides = self.labels(part.lhs), self.labels(part.rhs)
        if _is_number(part.lhs) or _is_number(part.rhs):
            return sides[0] | sides[1]
        matching = part.modifier.matching if part.modifier else None
        if matching is not None:
            for side in sides:
                self._need(matching.labels, side, "matching")
        elif sides[0] != sides[1]:
            self.problems.append(f"the sides have other labels: {sorted(sides[0])} and {sorted(sides[1])}")
        return sides[0]

    def _need(self, names: list[str], labels: frozenset[str], where: str) -> None:
        self.problems += [f"{where} has no label {name}" for name in names if name not in labels]


def _is_number(part: ql.Expr) -> bool:
    match part:
        case ql.NumberLiteral():
            return True
        case ql.ParenExpr() | ql.UnaryExpr():
            return _is_number(part.expr)
        case ql.BinaryExpr():
            return _is_number(part.lhs) and _is_number(part.rhs)
    return False
