"""Worker pools: a Deployment each, grace times, rollouts, the right to write the deletion cost."""

import math

import pytest

from tests.helm.cases import KEDA, TWO_POOLS, URL, over
from tests.helm.tools import container, env, kinds, pick, render
from turnpool.settings import Settings


def test_a_deployment_per_pool() -> None:
    """Each entry of workers.pools has its own Deployment with its queues, agents, slots and resources."""
    manifests = render(over(URL, TWO_POOLS))
    default = pick(manifests, "Deployment", "-worker-default")
    gpu = pick(manifests, "Deployment", "-worker-gpu")
    assert env(default)["TURNPOOL_QUEUES"] == "turns"
    assert env(default)["TURNPOOL_CONCURRENCY"] == "200"
    assert env(gpu)["TURNPOOL_QUEUES"] == "gpu,long-gpu"
    assert env(gpu)["TURNPOOL_AGENTS"] == "paint=mine.paint:agent@gpu,video=mine.video:agent@long-gpu"
    assert env(gpu)["TURNPOOL_CONCURRENCY"] == "4"
    assert container(gpu)["image"] == "mine/agents-gpu:7"
    assert container(gpu)["resources"]["limits"] == {"memory": "1Gi", "nvidia.com/gpu": 1}
    spec = gpu["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"accelerator": "l4"}
    assert spec["runtimeClassName"] == "gvisor"


def test_a_digest_stays_with_its_image() -> None:
    """A pool with an image of its own does not get the digest of the common one."""
    digest = {"image": {"digest": "sha256:" + "1" * 64}}
    manifests = render(over(URL, TWO_POOLS, digest))
    assert container(pick(manifests, "Deployment", "-worker-gpu"))["image"] == "mine/agents-gpu:7"
    assert "@sha256:111" in container(pick(manifests, "Deployment", "-worker-default"))["image"]


@pytest.mark.parametrize(
    ("pool", "seconds"),
    [
        ({}, 125),
        ({"drainSeconds": 0}, 15),
        ({"drainSeconds": 300.5}, 316),
        ({"terminationGracePeriodSeconds": 120}, 120),
    ],
)
def test_grace_comes_from_the_drain_time(pool: dict[str, float], seconds: int) -> None:
    """SIGKILL comes at least ten seconds after the drain time is over."""
    worker = pick(render(over(URL, {"workers": {"defaults": pool}})), "Deployment", "-worker-default")
    assert worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == seconds
    assert seconds >= math.ceil(float(env(worker)["TURNPOOL_DRAIN_SECONDS"])) + 10


def test_the_drain_time_is_turnpools_own() -> None:
    """The chart's default drain time is the default of the worker."""
    worker = pick(render(URL), "Deployment", "-worker-default")
    assert float(env(worker)["TURNPOOL_DRAIN_SECONDS"]) == Settings.model_fields["drain_seconds"].default


def test_replicas_are_absent_while_keda_scales() -> None:
    """A fixed number of replicas would undo KEDA's at every upgrade."""
    assert pick(render(URL), "Deployment", "-worker-default")["spec"]["replicas"] == 2
    assert "replicas" not in pick(render(over(URL, KEDA)), "Deployment", "-worker-default")["spec"]


def test_a_rollout_takes_no_worker_away_first() -> None:
    """New pods come before old ones drain."""
    worker = pick(render(URL), "Deployment", "-worker-default")
    assert worker["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}


def test_probes_ask_the_metrics_port() -> None:
    """Workers are asked on the metrics port, and none is killed for one slow answer."""
    worker = container(pick(render(URL), "Deployment", "-worker-default"))
    assert {"name": "metrics", "containerPort": 9808} in worker["ports"]
    paths = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    for probe, path in paths.items():
        assert worker[probe]["httpGet"] == {"path": path, "port": "metrics"}
    assert worker["livenessProbe"]["periodSeconds"] * worker["livenessProbe"]["failureThreshold"] >= 60


def test_deletion_cost_off() -> None:
    """By default no pod has a token, and no role is made."""
    manifests = render(URL)
    assert not kinds(manifests) & {"Role", "RoleBinding"}
    worker = pick(manifests, "Deployment", "-worker-default")
    assert worker["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert "TURNPOOL_POD_DELETION_COST" not in env(worker)


def test_deletion_cost_on() -> None:
    """Workers, and no one else, may get and patch pods, and know their own."""
    manifests = render(over(URL, {"workers": {"podDeletionCost": True}}))
    (rule,) = pick(manifests, "Role")["rules"]
    assert rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "patch"]}
    (subject,) = pick(manifests, "RoleBinding")["subjects"]
    worker = pick(manifests, "Deployment", "-worker-default")
    spec = worker["spec"]["template"]["spec"]
    assert subject["name"] == spec["serviceAccountName"] == "rel-turnpool-worker"
    assert spec["automountServiceAccountToken"] is True
    assert env(worker)["TURNPOOL_POD_DELETION_COST"] == "true"
    assert env(worker)["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert env(worker)["POD_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    api = pick(manifests, "Deployment", "-api")
    assert api["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
