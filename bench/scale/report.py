"""The tables of docs/scale.md."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from bench.scale.costs import Costs
from bench.scale.model import (
    POD_BUSY,
    STORE_BUSY,
    Model,
    Options,
    Plan,
    Room,
    Traffic,
    all_at_once,
    conversations,
)
from bench.scale.valkey import Fixed
from turnpool.keys import CLUSTER_PARTITIONS

SIZES = (10_000, 100_000, 1_000_000)
CASES: dict[str, Callable[[float], Traffic]] = {
    "Conversations": conversations,
    "All stream at once": all_at_once,
}
# What is mended, each with all before it.
MENDS: dict[str, dict[str, float]] = {
    "a cluster, as it comes": {},
    "`FLUSH_MS` 100": {"flush": 0.1},
    "and `LEASE_SECONDS` 9": {"lease": 9},
    "and claims that ask one partition (code)": {"claim_rounds": 0},
    "and looks shared between workers (code)": {"looks": 0},
}
GB, MICRO = 1e9, 1e-6

Row = Callable[[Traffic, Plan, Costs], str]


def text(costs: Costs, fixed: Fixed) -> str:
    """All of them, in Markdown."""
    model = Model(costs, fixed)
    parts = ["### What it takes", ""]
    for name, case in CASES.items():
        parts += [f"**{name}**", "", *_needs(model, case), ""]
    parts += ["### Which part gives way first", "", *_limits(model), ""]
    parts += ["### What mends it", "", *_mends(costs, fixed), ""]
    parts += ["### What things cost", "", *_costs(costs), "", *_fixed(fixed)]
    return "\n".join(parts)


def _part(name: str) -> Row:
    return lambda _, plan, __: _number(plan.store[name])


ROWS: dict[str, Row] = {
    "turns that stream at a moment": lambda traffic, *_: _number(traffic.running),
    "turns a second, so wake-ups a second through the broker": lambda traffic, *_: _number(traffic.turns),
    "tokens a second": lambda traffic, *_: _number(traffic.tokens),
    "events a second": lambda _, plan, __: _number(plan.events),
    f"API pods, {POD_BUSY * 100:.0f} % of a core": lambda _, plan, __: _number(plan.apis),
    "streams of an API pod (`streamsPerPod`)": lambda traffic, plan, _: _number(traffic.running / plan.apis),
    f"worker pods, {POD_BUSY * 100:.0f} % of a core": lambda _, plan, __: _number(plan.workers),
    "turns a worker can run (`CONCURRENCY`)": lambda _, plan, __: _number(plan.slots),
    "worker pods that KEDA asks for (slots filled to 0.8)": lambda _, plan, __: _number(plan.keda),
    "memory of a worker's turns, and of an API's, MB": lambda traffic, plan, costs: (
        f"{_number(plan.slots * costs.rss['worker'] / 1e6)}, "
        f"{_number(traffic.running / plan.apis * costs.rss['api'] / 1e6)}"
    ),
    "store: cores used": lambda _, plan, __: _number(plan.store_cores),
    **{f"of these, for {part}": _part(part) for part in ("turns", "events", "looks", "flushes", "claims")},
    f"store: shards, {STORE_BUSY * 100:.0f} % of a core and 32 GB each": lambda _, plan, __: _shards(plan),
    "store: GB of logs, and of turns and sessions": lambda _, plan, __: (
        f"{_number(plan.log_bytes / GB)}, {_number(plan.record_bytes / GB)}"
    ),
    "pub/sub connections to each shard, in all": lambda _, plan, __: (
        f"{_number(plan.apis)}, {_number(plan.apis * plan.shards)}"
    ),
    "all connections to each shard, at most": lambda _, plan, __: _number(plan.connections),
    "broker: cores used": lambda _, plan, __: _number(plan.broker_cores),
    "seconds until the APIs have accepted all, if all post at once": lambda traffic, plan, costs: _number(
        traffic.sessions / plan.apis / costs.accepted
    ),
}


def _needs(model: Model, case: Callable[[float], Traffic]) -> list[str]:
    planned = [(traffic, model.plan(traffic)) for traffic in map(case, SIZES)]
    rows = ([name, *(row(*each, model.costs) for each in planned)] for name, row in ROWS.items())
    return _table(["sessions", *map(_number, SIZES)], rows)


def _limits(model: Model) -> list[str]:
    rows = []
    for name, case in CASES.items():
        for size in SIZES:
            limits = model.plan(case(size)).limits
            used = sorted(limits, key=limits.__getitem__, reverse=True)
            told = [_told(limit, limits[limit]) for limit in used]
            rows.append([name, _number(size), *told[:4]])
    return _table(["", "sessions", "first", "then", "then", "then"], rows)


def _told(limit: str, used: float) -> str:
    told = f"{limit} {used * 100:,.0f} %"
    return f"**{told}**" if used > 1 else told


def _mends(costs: Costs, fixed: Fixed) -> list[str]:
    parts = []
    for name, case in CASES.items():
        traffic, options = case(SIZES[-1]), Options()
        rows = [["one server, no cluster", *_carries(Model(costs, fixed).room(traffic, 1))]]
        for mend, change in MENDS.items():
            options = replace(options, **change)
            rows.append([mend, *_carries(Model(costs, fixed, options).most(traffic))])
        names = [name, "most sessions", "shards", "what stops it", "pools for a million", "their shards"]
        parts += [*_table(names, rows), ""]
    return parts[:-1]


def _carries(room: Room) -> list[str]:
    pools = math.ceil(SIZES[-1] / room.sessions)
    return [
        _rounded(room.sessions),
        str(room.shards),
        room.first,
        _number(pools),
        _number(pools * room.shards),
    ]


def _costs(costs: Costs) -> list[str]:
    rows = [
        [
            role,
            *(
                _number(value / MICRO)
                for value in (cost.turn, cost.event, cost.token, cost.flush, cost.second)
            ),
            f"{cost.looseness:.2f}",
            f"{cost.error * 100:.0f} %",
        ]
        for role, cost in costs.of.items()
    ]
    names = ["turn", "event", "token", "flush", "second", "out of step", "error of the fit"]
    return _table(["CPU, us", *names], rows)


def _fixed(fixed: Fixed) -> list[str]:
    sides = [
        [name, *(f"{value / MICRO:.1f}" for value in (side.pipeline, side.read, side.call))]
        for name, side in (("who asks", fixed.client), ("the shard", fixed.server))
    ]
    size = fixed.bytes
    told = (
        f"A wake-up costs the broker {fixed.wake_up / MICRO:.0f} us. The log of a turn that has ended takes "
        f"{size.log_turn:,.0f} bytes, {size.log_event:.0f} more for each event and {size.log_token:.1f} for "
        f"each token; the turn and its session {size.record_turn:,.0f}, and {size.record_token:.1f} for each "
        "token."
    )
    return [*_table(["CPU, us", "pipeline", "read in it", "script in it"], sides), "", told]


def _table(names: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def _shards(plan: Plan) -> str:
    if plan.fits():
        return _number(plan.shards)
    return f"**more than {CLUSTER_PARTITIONS}**"


def _number(value: float) -> str:
    """Two digits where there are fewer before the point."""
    digits = 2 if value < 1 else 1 if value < 10 else 0  # noqa: PLR2004 - places of the point
    return f"{value:,.{digits}f}" if value != round(value) else f"{value:,.0f}"


def _rounded(value: float) -> str:
    """Two digits: more are not known."""
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.0f}"
