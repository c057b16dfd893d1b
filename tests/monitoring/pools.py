"""Cases of rules_test.yaml for two pools that share a Prometheus."""

import re
from typing import Any

SERIES = re.compile(r"(?P<name>\w+)\{(?P<labels>.*)\}")
# What a healthy pool has a lot of; everything else is 0.
FLOWS = {
    "turnpool_turn_seconds_count",
    "turnpool_turns_submitted_total",
    "turnpool_stream_opens_total",
    "turnpool_http_requests_total",
}
LEVELS = {
    "turnpool_queue_slots": 200,
    "turnpool_worker_slots": 200,
    "turnpool_queue_workers": 2,
    "turnpool_queue_limit": 100_000,
    "turnpool_queue_deadline_seconds": 86_400,
    "process_start_time_seconds": 1,
    "up": 1,
}
BAD = re.compile(r'status="(failed|5..|404)"')
SAMPLES = 200

Case = dict[str, Any]


def is_of_a_pool(case: Case) -> bool:
    """Whether any pool is seen in the case."""
    return any(each["series"].startswith("turnpool_") for each in case["input_series"])


def two_pools(case: Case, bad: str, good: str) -> Case:
    """The case in the pool `bad`, beside the pool `good` that has the same series and is well."""
    given = [(each["series"], each["values"]) for each in case["input_series"]]
    series = [(_labelled(name, bad), values) for name, values in given]
    for name, _ in given:
        series += [(_labelled(each, good), _healthy(each)) for each in _with_companions(name)]
    return {
        "name": f"{case['name']}, in pool {bad}",
        "interval": case["interval"],
        "input_series": [{"series": name, "values": values} for name, values in dict(series).items()],
        "promql_expr_test": [_expected(test, bad) for test in case["promql_expr_test"]],
    }


def _expected(test: Case, pool: str) -> Case:
    samples = [
        {"labels": sample["labels"].replace("{", f'{{pool="{pool}",'), "value": int(sample["value"])}
        for sample in test["exp_samples"]
    ]
    return {**test, "expr": test["expr"].replace("by (", "by (pool, "), "exp_samples": samples}


def _with_companions(series: str) -> list[str]:
    # A pool whose workers are counted has them scraped, if it is well.
    if series.startswith("turnpool_queue_workers{"):
        return [series, series.replace("turnpool_queue_workers{", "turnpool_worker_slots{")]
    return [series]


def _labelled(series: str, pool: str) -> str:
    return series.replace("{", f'{{pool="{pool}",', 1)


def _healthy(series: str) -> str:
    match = SERIES.fullmatch(series)
    assert match, series
    is_flow = match["name"] in FLOWS or match["name"].endswith("_bucket")
    if is_flow and not BAD.search(match["labels"]):
        return f"0+1000x{SAMPLES}"
    return f"{LEVELS.get(match['name'], 0)}x{SAMPLES}"
