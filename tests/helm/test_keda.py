"""KEDA: what pools are scaled by."""

from typing import Any

import pytest

from tests.helm.cases import (
    BROKER,
    EMBEDDED,
    KEDA,
    KEYS,
    METRICS_API,
    PROMETHEUS,
    SECRET,
    SENTINEL,
    SENTINEL_TLS,
    TLS,
    TWO_POOLS,
    URL,
    Values,
    over,
)  # fmt: skip
from tests.helm.tools import kinds, pick, render
from turnpool import keys

# The release that tests.helm.tools renders.
P = keys.prefix("agents.rel", "0")


def scaled(*layers: Values, pool: str = "default") -> dict[str, Any]:
    """Spec of a pool's ScaledObject."""
    found: dict[str, Any] = pick(render(over(*layers)), "ScaledObject", f"-{pool}")["spec"]
    return found


def authentication(*layers: Values, name: str) -> dict[str, tuple[str, str]]:
    """Parameters of a TriggerAuthentication: name and key of the Secret."""
    spec = pick(render(over(*layers)), "TriggerAuthentication", name)["spec"]
    return {each["parameter"]: (each["name"], each["key"]) for each in spec["secretTargetRef"]}


def test_none_without_keda() -> None:
    """Without KEDA the chart makes none of its objects."""
    assert not kinds(render(URL)) & {"ScaledObject", "TriggerAuthentication"}


def test_backlog_and_running_are_summed() -> None:
    """Two triggers, a list and a sorted set, and a formula that adds them, per slots to be in use."""
    spec = scaled(URL, KEDA)
    ready, running = spec["triggers"]
    assert ready["metadata"]["listName"] == keys.wakeups("agents.rel", "turns")
    assert running["metadata"]["listName"] == keys.leases(P, "turns")
    modifiers = spec["advanced"]["scalingModifiers"]
    assert modifiers["formula"] == f"{ready['name']} + {running['name']}"
    assert float(modifiers["target"]) == 50 * 0.8
    assert modifiers["metricType"] == "AverageValue"
    assert spec["scaleTargetRef"]["name"] == "rel-turnpool-worker-default"


def test_target_follows_slots() -> None:
    """The target is slots times utilisation of the pool itself."""
    full = {"workers": {"pools": {"gpu": {"autoscaling": {"targetUtilization": 1}}}}}
    spec = scaled(URL, KEDA, TWO_POOLS, full, pool="gpu")
    assert spec["advanced"]["scalingModifiers"]["target"] == "4"


@pytest.mark.parametrize(("slots", "target"), [(4, "3"), (1, "1"), (100, "80")])
def test_target_is_a_whole_number(slots: int, target: str) -> None:
    """KEDA takes a target with a point for one that allows no fallback."""
    few = {"workers": {"defaults": {"concurrency": slots}}}
    assert scaled(URL, KEDA, few)["advanced"]["scalingModifiers"]["target"] == target


def test_names_leave_room_for_the_hpa() -> None:
    """KEDA's HPA is keda-hpa-<name>, which is a label's value too."""
    long = {"fullnameOverride": "a" * 60, "workers": {"pools": {"default": None, "fifteen-letters": {}}}}
    name = pick(render(over(URL, KEDA, long)), "ScaledObject")["metadata"]["name"]
    assert name.endswith("-worker-fifteen-letters")
    assert len(f"keda-hpa-{name}") <= 63


def test_a_pool_with_two_queues() -> None:
    """All queues of a pool are in its sum, under names that the formula can have."""
    spec = scaled(URL, KEDA, TWO_POOLS, pool="gpu")
    assert spec["advanced"]["scalingModifiers"]["formula"] == (
        "ready_gpu + running_gpu + ready_long_gpu + running_long_gpu"
    )
    assert [each["metadata"]["listName"] for each in spec["triggers"]] == [
        "agents.rel:gpu", keys.leases(P, "gpu"), "agents.rel:long-gpu", keys.leases(P, "long-gpu"),
    ]  # fmt: skip


def test_fast_out_and_in() -> None:
    """Neither waits, since drains cost no turn; scale-in takes at most half at once."""
    behavior = scaled(URL, KEDA)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert max(each["value"] for each in behavior["scaleUp"]["policies"] if each["type"] == "Pods") >= 10
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 0
    assert max(each["value"] for each in behavior["scaleDown"]["policies"] if each["type"] == "Percent") == 50


def test_bounds_and_fallback() -> None:
    """Bounds are the pool's; while the trigger cannot be read, no running pod is taken away."""
    spec = scaled(URL, KEDA)
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 20)
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 2, "behavior": "currentReplicasIfHigher"}
    none = {"workers": {"defaults": {"autoscaling": {"minReplicas": 0}}}}
    assert scaled(URL, KEDA, none)["minReplicaCount"] == 0


def test_plain_server_needs_no_authentication() -> None:
    """Without password and TLS there is nothing to authenticate with."""
    for trigger in scaled(URL, KEDA)["triggers"]:
        assert "authenticationRef" not in trigger
        assert trigger["metadata"]["address"] == "redis:6379"
        assert trigger["metadata"]["databaseIndex"] == "0"


def test_embedded() -> None:
    """KEDA finds the embedded server from its own namespace, with its password."""
    ready, _ = scaled(EMBEDDED, KEDA)["triggers"]
    assert ready["metadata"]["address"] == "rel-turnpool-redis.agents.svc:6379"
    assert ready["authenticationRef"] == {"name": "rel-turnpool-redis"}
    assert authentication(EMBEDDED, KEDA, name="-redis") == {
        "password": ("rel-turnpool-redis", "redis-password")
    }


def test_tls() -> None:
    """TLS with an authority of one's own is switched on by the authentication, else by the trigger."""
    ready, _ = scaled(TLS, KEDA)["triggers"]
    assert ready["metadata"]["address"] == "redis.example.com:6380"
    assert ready["metadata"]["databaseIndex"] == "2"
    assert ready["metadata"]["username"] == "user"
    assert "enableTLS" not in ready["metadata"]
    parameters = authentication(TLS, KEDA, name="-redis")
    assert parameters["ca"] == ("redis-ca", "ca.crt")
    switch, key = parameters["tls"]
    assert pick(render(over(TLS, KEDA)), "Secret", switch)["stringData"] == {key: "enable"}
    known = {"redis": {"caSecret": {"name": ""}}}
    assert scaled(TLS, KEDA, known)["triggers"][0]["metadata"]["enableTLS"] == "true"


def test_sentinel() -> None:
    """Sentinels have a trigger of their own."""
    for trigger in scaled(SENTINEL, KEDA)["triggers"]:
        assert trigger["type"] == "redis-sentinel"
        assert trigger["metadata"]["addresses"] == "s1:26379,s2:26379"
        assert trigger["metadata"]["sentinelMaster"] == "main"
        assert trigger["metadata"]["databaseIndex"] == "1"


def test_sentinel_with_tls_and_a_password_of_its_own() -> None:
    """KEDA logs in to the Sentinels and speaks TLS as turnpool does; no secret is in the trigger."""
    for trigger in scaled(SENTINEL_TLS, KEDA)["triggers"]:
        assert trigger["type"] == "redis-sentinel"
        assert trigger["metadata"]["addresses"] == "s1:26379,s2:26379"
        assert trigger["metadata"]["username"] == "user"
        assert trigger["metadata"]["sentinelUsername"] == "watcher"
        assert "enableTLS" not in trigger["metadata"]
    parameters = authentication(SENTINEL_TLS, KEDA, name="-redis")
    assert parameters["sentinelPassword"] == ("sentinels", "sentinel-password")
    assert parameters["password"] == (SECRET, "redis-password")
    assert parameters["ca"] == ("redis-ca", "ca.crt")
    known = {"redis": {"caSecret": {"name": ""}}}
    assert scaled(SENTINEL_TLS, KEDA, known)["triggers"][0]["metadata"]["enableTLS"] == "true"


def test_broker_elsewhere() -> None:
    """The backlog is on the broker, the leases are on the store, each with its own password."""
    ready, running = scaled(BROKER, KEDA)["triggers"]
    assert ready["metadata"]["address"] == "broker:6379"
    assert ready["metadata"]["databaseIndex"] == "3"
    assert running["metadata"]["address"] == "redis.example.com:6380"
    assert authentication(BROKER, KEDA, name="-broker") == {"password": ("broker-secret", "pw")}


def test_metrics_api() -> None:
    """GET /v1/pool gives the same two figures of the queue."""
    ready, running = scaled(URL, METRICS_API)["triggers"]
    assert ready["metadata"]["url"] == "http://rel-turnpool-api.agents.svc:80/v1/pool"
    assert ready["metadata"]["valueLocation"] == 'queues.#(name=="turns").ready'
    assert running["metadata"]["valueLocation"] == 'queues.#(name=="turns").running'
    assert "authMode" not in ready["metadata"]


def test_metrics_api_with_key() -> None:
    """Where the API wants a key, KEDA has one."""
    token = {"keda": {"metricsApi": {"tokenSecret": {"name": "pool-key"}}}}
    ready, _ = scaled(URL, KEYS, METRICS_API, token)["triggers"]
    assert ready["metadata"]["authMode"] == "bearer"
    assert authentication(URL, KEYS, METRICS_API, token, name="-pool") == {"token": ("pool-key", "token")}


@pytest.mark.parametrize(
    ("matchers", "inside"),
    [
        ("", 'queue="turns",pool="agents.rel",namespace="agents"'),
        ('a="b"', 'queue="turns",pool="agents.rel",a="b"'),
    ],
)
def test_prometheus(matchers: str, inside: str) -> None:
    """The pool-wide metrics are the same on every API pod of the namespace: max; nothing is not zero."""
    ready, running = scaled(URL, PROMETHEUS, {"keda": {"prometheus": {"matchers": matchers}}})["triggers"]
    assert ready["metadata"]["query"] == f"max(turnpool_queue_ready{{{inside}}})"
    assert running["metadata"]["query"] == f"max(turnpool_queue_running{{{inside}}})"
    assert ready["metadata"]["ignoreNullValues"] == "false"
