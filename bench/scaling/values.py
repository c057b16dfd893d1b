"""The shipped values, read from the chart."""

from pathlib import Path
from typing import Any

import yaml

from bench.scaling.algorithm import DEFAULT_DOWN, DEFAULT_UP, Policy, Rules, Scaling

CHART = Path(__file__).parents[2] / "helm/turnpool/values.yaml"


def shipped(path: Path = CHART) -> tuple[Scaling, int]:
    """How the chart scales its first pool, and the slots of that pool's workers."""
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    defaults = values["workers"]["defaults"]
    pool = next(iter(values["workers"]["pools"].values()))
    slots: int = pool.get("concurrency", defaults["concurrency"])
    section = {**defaults["autoscaling"], **pool.get("autoscaling", {})}
    return read(section, values["keda"], slots), slots


def read(section: dict[str, Any], keda: dict[str, Any], slots: int) -> Scaling:
    """From a pool's `autoscaling`, whose `behavior` is as in autoscaling/v2, and the chart's `keda`."""
    behavior = section.get("behavior") or {}
    return Scaling(
        target=slots * section["targetUtilization"],
        min_replicas=section["minReplicas"],
        max_replicas=section["maxReplicas"],
        up=_rules(behavior.get("scaleUp") or {}, DEFAULT_UP),
        down=_rules(behavior.get("scaleDown") or {}, DEFAULT_DOWN),
        polling_seconds=keda["pollingInterval"],
        cooldown_seconds=keda["cooldownPeriod"],
    )


def _rules(section: dict[str, Any], default: Rules) -> Rules:
    """One direction; what is left out is as Kubernetes has it."""
    policies = tuple(
        Policy(policy["type"], policy["value"], policy["periodSeconds"])
        for policy in section.get("policies") or ()
    )
    return Rules(
        policies or default.policies,
        section.get("stabilizationWindowSeconds", default.stabilization_seconds),
        section.get("selectPolicy", "Max"),
    )
