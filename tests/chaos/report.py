"""The table: what was injected, what was seen, what must not be."""

from typing import Any

from tests.chaos.book import Book


def percentile(values: list[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def summary(book: Book, seed: int, seconds: float) -> dict[str, Any]:
    """All figures, as JSON."""
    return {
        "seed": seed,
        "seconds": seconds,
        "injected": dict(sorted(book.injected.items())),
        "seen": dict(sorted(book.seen.items())),
        "figures": {
            name: {
                "count": len(values),
                "p50": round(percentile(values, 0.5), 3),
                "p99": round(percentile(values, 0.99), 3),
                "max": round(max(values), 3),
            }
            for name, values in sorted(book.figures.items())
        },
        "broken": dict(book.broken),
        "details": book.details,
    }


def table(found: dict[str, Any]) -> str:
    """The same for people, in Markdown."""
    rows = [("injected", ""), *found["injected"].items(), ("seen", ""), *found["seen"].items()]
    rows += [("measured: p50 / p99 / most (of how many)", "")]
    rows += [
        (name, f"{f['p50']} / {f['p99']} / {f['max']} ({f['count']})") for name, f in found["figures"].items()
    ]
    rows += [("promises broken", sum(found["broken"].values())), *found["broken"].items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"| {name:<{width}} | {value!s:>26} |" for name, value in rows]
    lines.insert(0, f"| {'seed ' + str(found['seed']):<{width}} | {found['seconds']:>24.0f} s |")
    lines.insert(1, f"|{'-' * (width + 2)}|{'-' * 27}:|")
    for what, details in found["details"].items():
        lines += [f"{what}: {detail}" for detail in details]
    return "\n".join(lines)
