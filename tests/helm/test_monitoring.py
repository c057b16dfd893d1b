"""Monitors, alerts, the dashboard, traces."""

import json

import yaml

from tests.helm.cases import FLOWER, MONITORING, NETWORK, PEER, TWO_POOLS, URL, over
from tests.helm.tools import CHART, container, kinds, pick, render
from tests.monitoring.promql import selectors


def test_monitors_find_named_ports() -> None:
    """The API and Flower are read through their Services, workers of all pools pod by pod."""
    manifests = render(over(URL, TWO_POOLS, MONITORING, FLOWER))
    for name in ("-api", "-flower"):
        monitor = pick(manifests, "ServiceMonitor", name)
        service = pick(manifests, "Service", name)
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
    monitor = pick(manifests, "PodMonitor")["spec"]
    for pool in ("-worker-default", "-worker-gpu"):
        worker = pick(manifests, "Deployment", pool)
        labels = worker["spec"]["template"]["metadata"]["labels"]
        assert monitor["selector"]["matchLabels"].items() <= labels.items()
        assert monitor["podMetricsEndpoints"][0]["port"] in {
            each["name"] for each in container(worker)["ports"]
        }


def test_jobs_have_the_names_that_alerts_look_for() -> None:
    """Whatever the objects are called, TurnpoolTargetDown finds the targets by their job."""
    manifests = render(over(URL, MONITORING, FLOWER, {"fullnameOverride": "mine"}))
    jobs = set()
    for monitor in manifests:
        spec = monitor.get("spec", {})
        for endpoint in spec.get("endpoints", []) + spec.get("podMetricsEndpoints", []):
            job, pool = endpoint["relabelings"]
            assert job["targetLabel"] == "job"
            jobs.add(job["replacement"])
            # `up` has its pool from here; the metrics' own wins, and no label exported_pool is made.
            assert pool == {"targetLabel": "pool", "replacement": "agents.rel"}
            assert endpoint["honorLabels"] is True
    assert jobs == {"turnpool-api", "turnpool-flower", "turnpool-worker"}


def test_every_rule_is_of_this_release() -> None:
    """Each selector names the pool and the namespace, so that no other release's figures count."""
    for given, pool in ({}, "agents.rel"), ({"namespace": "mine"}, "mine"):
        rules = pick(render(over(URL, MONITORING, given)), "PrometheusRule")["spec"]
        checked = 0
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            for selector in selectors(rule["expr"]):
                matchers = {(each.name, str(each.op), each.value) for each in selector.matchers.matchers}
                own = {("pool", "MatchOp.Equal", pool), ("namespace", "MatchOp.Equal", "agents")}
                assert own <= matchers, rule["alert"]
                checked += 1
        assert checked > 30


def test_rules_and_dashboard_are_the_shipped_files() -> None:
    """The objects hold files/rules.yaml, narrowed to the release, and files/dashboard.json unchanged."""
    manifests = render(over(URL, MONITORING))
    rules = pick(manifests, "PrometheusRule")["spec"]
    shipped = (CHART / "files" / "rules.yaml").read_text()
    assert rules == yaml.safe_load(shipped.replace('pool=~".*"', 'pool="agents.rel",namespace="agents"'))
    dashboard = pick(manifests, "ConfigMap", "-dashboard")
    assert json.loads(dashboard["data"]["turnpool.json"]) == json.loads(
        (CHART / "files" / "dashboard.json").read_text()
    )
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_off_by_default() -> None:
    """A cluster without the Prometheus operator needs none of it."""
    assert not kinds(render(URL)) & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}


def test_tracing() -> None:
    """Traces go to the endpoint, and each pod says which it is."""
    tracing = {"tracing": {"enabled": True, "endpoint": "http://collector:4318"}}
    manifests = render(over(URL, tracing))
    data = pick(manifests, "ConfigMap", "rel-turnpool")["data"]
    assert data["TURNPOOL_TRACING"] == "true"
    assert data["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    names = [each["name"] for each in container(pick(manifests, "Deployment", "-api"))["env"]]
    # Kubernetes puts in only variables that are named before.
    assert names.index("POD_NAME") < names.index("OTEL_RESOURCE_ATTRIBUTES")
    assert "TURNPOOL_TRACING" not in pick(render(URL), "ConfigMap", "rel-turnpool")["data"]


def test_a_closed_network_lets_prometheus_in() -> None:
    """With apiFrom set, Prometheus and the pod of helm test still reach the API."""
    prometheus = [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]
    closed = {"networkPolicy": {"apiFrom": PEER, "metricsFrom": prometheus}}
    (rule,) = pick(render(over(URL, NETWORK, closed)), "NetworkPolicy", "-api")["spec"]["ingress"]
    test, *others = rule["from"]
    assert test["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    assert others == PEER + prometheus
