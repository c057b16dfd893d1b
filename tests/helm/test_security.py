"""What pods may do, whom they may call, and where they run."""

import pytest

from tests.helm.cases import (
    CASES,
    EMBEDDED,
    EVERYTHING,
    EXTRAS,
    FLOWER,
    HIDDEN_URL,
    KEDA,
    METRICS_API,
    NETWORK,
    PEER,
    SENTINEL,
    TLS,
    URL,
    Values,
    over,
)
from tests.helm.tools import Manifest, container, env, kinds, pick, pod_specs, render

ALL = over(EMBEDDED, FLOWER, NETWORK)


def policies(values: Values) -> dict[str, Manifest]:
    """Specs of the network policies by component."""
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]
        for each in render(values)
        if each["kind"] == "NetworkPolicy"
    }


def test_every_pod_is_locked_down() -> None:
    """No root, no capability, no writable root, no token, no service links, the runtime's seccomp profile."""
    for spec in pod_specs(render(ALL)).values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (only,) = spec["containers"]
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"name": "tmp", "emptyDir": {}} in spec["volumes"]
        assert {"name": "tmp", "mountPath": "/tmp"} in only["volumeMounts"]  # noqa: S108 - the pod's own
        assert only["resources"]["requests"]["cpu"]
        assert only["resources"]["limits"]["memory"]


def test_each_component_has_its_account() -> None:
    """Accounts are apart, and give no token by themselves."""
    accounts = [each for each in render(ALL) if each["kind"] == "ServiceAccount"]
    assert {each["metadata"]["name"] for each in accounts} == {
        f"rel-turnpool-{component}" for component in ("api", "worker", "flower", "redis")
    }
    assert not [each for each in accounts if each["automountServiceAccountToken"]]


def test_network_policies() -> None:
    """Every component has one, both ways; the embedded Redis calls no one and answers only its own."""
    found = policies(ALL)
    assert set(found) == {"api", "worker", "flower", "redis", "test"}
    for spec in found.values():
        assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert found["redis"]["egress"] == []
    (rule,) = found["redis"]["ingress"]
    release, keda = rule["from"]
    assert release["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "rel"
    assert keda["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "keda"}


def test_only_workers_reach_the_world() -> None:
    """The API calls names and Redis; workers anything but the cloud's metadata service."""
    found = policies(ALL)
    assert not [rule for rule in found["api"]["egress"] if "to" in rule]
    (world,) = [rule for rule in found["worker"]["egress"] if "to" in rule]
    everywhere, ipv4, _ = world["to"]
    # A block of addresses holds no pods with Cilium.
    assert everywhere == {"namespaceSelector": {}}
    assert ipv4["ipBlock"]["except"] == ["169.254.169.254/32"]


@pytest.mark.parametrize(
    ("values", "ports"),
    [
        (URL, {6379, 26379}),
        (TLS, {6379, 26379, 6380}),
        (over(URL, {"broker": {"url": "redis://user@[fd00::1]:7000/3"}}), {6379, 26379, 7000}),
        (over(SENTINEL, {"redis": {"url": "sentinel://a:5000,b/0?master=m"}}), {6379, 26379, 5000}),
        (over(URL, {"networkPolicy": {"redisPorts": [9999]}}), {6379, 9999}),
        (over(HIDDEN_URL, {"networkPolicy": {"redisPorts": [9999]}}), {9999}),
    ],
)
def test_pods_may_call_redis_where_it_is(values: Values, ports: set[int]) -> None:
    """The ports of the URLs are open, and those that are named besides."""
    for component in ("api", "worker"):
        (rule,) = [
            rule["ports"]
            for rule in policies(over(NETWORK, values))[component]["egress"]
            if "to" not in rule and rule["ports"][0]["port"] != 53
        ]
        assert {each["port"] for each in rule} == ports
        assert len(rule) == len(ports)


def test_keda_may_call_the_api_where_it_has_to() -> None:
    """With the metrics-api trigger a closed API lets KEDA in, and else not."""
    closed = over(URL, NETWORK, {"networkPolicy": {"apiFrom": PEER}})
    keda = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
    assert keda in policies(over(closed, METRICS_API))["api"]["ingress"][0]["from"]
    assert keda not in policies(over(closed, KEDA))["api"]["ingress"][0]["from"]


def test_budgets() -> None:
    """A node's drain takes one pod at a time, and never waits for one that is broken."""
    for name in ("-api", "-worker-default"):
        spec = pick(render(URL), "PodDisruptionBudget", name)["spec"]
        assert spec["maxUnavailable"] == 1
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert "PodDisruptionBudget" not in kinds(render(CASES["no budgets"]))


def test_pods_are_spread() -> None:
    """Pods of one Deployment are spread over zones and nodes, counted per version."""
    for name in ("-api", "-worker-default"):
        spec = pick(render(URL), "Deployment", name)["spec"]
        constraints = spec["template"]["spec"]["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in constraints] == [
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        ]
        for each in constraints:
            assert each["whenUnsatisfiable"] == "ScheduleAnyway"
            assert each["labelSelector"]["matchLabels"] == spec["selector"]["matchLabels"]
            assert each["matchLabelKeys"] == ["pod-template-hash"]


def test_extras() -> None:
    """Variables, volumes, labels and objects of the user arrive where they should, and only there."""
    manifests = render(over(URL, EXTRAS))
    api = pick(manifests, "Deployment", "-api")
    worker = pick(manifests, "Deployment", "-worker-default")
    assert env(api)["HTTPS_PROXY"] == env(worker)["HTTPS_PROXY"] == "http://proxy:3128"
    assert "ONLY_API" in env(api)
    assert "ONLY_API" not in env(worker)
    assert "ONLY_WORKER" in env(worker)
    assert {"configMapRef": {"name": "more"}} in container(worker)["envFrom"]
    assert {"name": "data", "mountPath": "/data"} in container(api)["volumeMounts"]
    template = api["spec"]["template"]
    assert {"name": "data", "emptyDir": {}} in template["spec"]["volumes"]
    assert template["metadata"]["labels"]["tier"] == "front"
    assert template["metadata"]["labels"]["team"] == "agents"
    assert template["metadata"]["annotations"]["note"] == "api"
    assert template["spec"]["priorityClassName"] == "high"
    assert "topologySpreadConstraints" not in template["spec"]
    assert container(api)["image"] == "registry.example.com/turnpool@sha256:" + "0" * 64
    assert {each["metadata"]["name"] for each in manifests} >= {"rel-map", "rel-text"}


def test_a_changed_setting_rolls_pods_out() -> None:
    """The checksum of the configuration is on the pods, so they start anew when it changes."""

    def checksum(*layers: Values) -> str:
        template = pick(render(over(URL, *layers)), "Deployment", "-api")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum() == checksum({"api": {"replicas": 5}})
    assert checksum() != checksum({"settings": {"maxQueued": 5}})


@pytest.mark.parametrize("word", ["password", "secret", "token"])
def test_no_secret_in_a_configmap_or_environment(word: str) -> None:
    """Nothing that is called a secret stands in a ConfigMap or in a variable's value, apart from paths."""
    for manifest in render(EVERYTHING):
        data = manifest.get("data") or {} if manifest["kind"] == "ConfigMap" else {}
        if manifest["metadata"]["name"].endswith(("-dashboard", "-redis")):
            continue
        assert not [key for key in data if word in key.lower()]
