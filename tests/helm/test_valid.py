"""Every object of every case, on three versions of Kubernetes."""

import json
import re
from functools import cache

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # it ships none
import pytest

from tests.helm.cases import CASES, EVERYTHING, Values
from tests.helm.schemas import SCHEMAS
from tests.helm.tools import CHART, VERSIONS, Manifest, kinds, pod_specs, render, run

CUSTOM_GROUP = re.compile(r"^(keda\.sh|monitoring\.coreos\.com|gateway\.networking\.k8s\.io)/")
case = pytest.mark.parametrize("values", CASES.values(), ids=list(CASES))


@cache
def validate(text: str, version: str) -> None:
    """Raises if the object is wrong or unknown; one that many cases render is looked at once."""
    manifest: Manifest = json.loads(text)
    if CUSTOM_GROUP.match(manifest["apiVersion"]):
        jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
    else:
        # An object it has no schema for raises too, which its command only warns of.
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@case
def test_every_object_is_valid(values: Values, version: str) -> None:
    """What is rendered is valid, field by field, on the oldest and the newest Kubernetes and between."""
    for manifest in render(values, version):
        validate(json.dumps(manifest, sort_keys=True), version)


@pytest.mark.slow
@case
def test_names_are_unique_and_fit(values: Values) -> None:
    """No two objects share kind and name, and each name fits into a label."""
    names = [(each["kind"], each["metadata"]["name"]) for each in render(values)]
    assert len(names) == len(set(names))
    assert all(len(name) <= 63 for _, name in names)


@pytest.mark.slow
@case
def test_labels_and_namespace(values: Values) -> None:
    """Every object of the chart says what it belongs to, and stands in the release's namespace."""
    for manifest in render(values):
        if manifest["metadata"]["name"] in {"rel-map", "rel-text"}:  # extraObjects are the user's
            continue
        assert manifest["metadata"]["namespace"] == "agents"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "rel"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


@pytest.mark.slow
@case
def test_selectors_find_their_own_pods_only(values: Values) -> None:
    """Each workload, Service and budget selects the pods of exactly one workload."""
    manifests = render(values)
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in manifests
        if each["kind"] in {"Deployment", "StatefulSet"}
    }
    for manifest in manifests:
        if manifest["kind"] not in {"Deployment", "StatefulSet", "Service", "PodDisruptionBudget"}:
            continue
        selector = manifest["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        assert [name for name, labels in pods.items() if wanted.items() <= labels.items()] == [
            manifest["metadata"]["name"]
        ]


@pytest.mark.slow
@case
def test_what_is_named_exists(values: Values) -> None:
    """ServiceAccounts, ConfigMaps and Secrets with the release's name that pods use are in the chart."""
    manifests = render(values)
    made = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    used = set()
    for spec in pod_specs(manifests).values():
        used.add(("ServiceAccount", spec.get("serviceAccountName", "default")))
        for volume in spec["volumes"]:
            used.add(("ConfigMap", volume.get("configMap", {}).get("name", "")))
            used.add(("Secret", volume.get("secret", {}).get("secretName", "")))
            for source in volume.get("projected", {}).get("sources", []):
                used.add(("Secret", source["secret"]["name"]))
    assert {each for each in used if each[1].startswith("rel-")} <= made


def test_lint() -> None:
    """`helm lint --strict` has nothing to say."""
    done = run("lint", "--strict", str(CHART), values=EVERYTHING)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


def test_old_kubernetes_is_refused() -> None:
    """A cluster older than the chart's kubeVersion is told so."""
    done = run("template", "rel", str(CHART), "--kube-version", "1.29", values=EVERYTHING)
    assert "kubeVersion" in done.stderr


def test_everything_is_everything() -> None:
    """The case with all features on has every kind that the chart can make."""
    templates = "\n".join(path.read_text() for path in (CHART / "templates").rglob("*.yaml"))
    assert kinds(render(EVERYTHING)) >= set(re.findall(r"^kind: (\w+)$", templates, re.MULTILINE))
