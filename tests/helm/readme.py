"""The chart's README.md, whose table of values is made from the comments of values.yaml.

`python -m tests.helm.readme --write` writes it; without --write it is shown.
"""

import json
import re
import sys
from typing import Any

import yaml

from tests.helm.tools import CHART

FILE = CHART / "README.md"
KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z]\w*):(?P<rest>.*)$")
LONGEST = 60  # characters of a default that is shown in full

HEAD = """# The chart of turnpool

<!-- Made by `python -m tests.helm.readme --write`; change values.yaml or tests/helm/readme.py instead. -->

API, worker pools, autoscaling by KEDA, Flower, routes for streams, monitoring: turnpool on Kubernetes
{kubernetes}. docs/kubernetes.md of the project says how to install, scale and upgrade it.

```sh
helm install turnpool ./helm/turnpool --namespace agents --create-namespace \\
  --set image.repository=registry.example.com/turnpool --set redis.url=redis://redis:6379/0 \\
  --set secrets.apiKeys.name=turnpool
```

A value that is misspelt or contradicts another is refused with a message that says so (values.schema.json and
templates/_checks.tpl).

## Values

| value | default | |
|---|---|---|
"""


def comments() -> dict[str, str]:
    """The comment above each key of values.yaml, by the key's path."""
    found: dict[str, str] = {}
    path: list[str] = []
    above: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        if line.lstrip().startswith("# "):
            above.append(line.strip()[2:])
            continue
        match = KEY.match(line)
        if match:
            depth = len(match["indent"]) // 2
            path = [*path[:depth], match["key"]]
            found[".".join(path)] = " ".join(above)
        above = []
    return found


def rows(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Paths and defaults; a map is a row itself where it is empty or said to be one value."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        path = prefix + key
        if isinstance(value, dict) and value and path.rpartition(".")[2] not in WHOLE:
            found += [(path, None), *rows(value, f"{path}.")]
        else:
            found.append((path, value))
    return found


WHOLE = {"behavior", "resources", "labels", "pools", "podSecurityContext", "containerSecurityContext"}
"""Maps that are set as a whole."""


COMMON = {
    "affinity": "Affinity of its pods.",
    "annotations": "Annotations of the object.",
    "behavior": "Behaviour of the HPA.",
    "caSecret": "As redis.caSecret.",
    "containerSecurityContext": "Of every container.",
    "create": "Makes a ServiceAccount; otherwise name must exist.",
    "digest": "Its digest, which wins over the tag.",
    "enabled": "Whether it is made.",
    "extraEnv": "More environment variables.",
    "extraVolumeMounts": "More mounts.",
    "extraVolumes": "More volumes.",
    "hostnames": "Host names; empty: any.",
    "interval": "Time between two reads.",
    "key": "Its key in the Secret.",
    "labels": "More labels, by which operators and sidecars find the object.",
    "maxReplicas": "Most pods.",
    "maxSurge": "Pods more than wanted during a rollout.",
    "maxUnavailable": "Pods that may be missing at once.",
    "minReplicas": "Least pods.",
    "name": "Its name; empty for none, or for the chart's own.",
    "nodeSelector": "Labels of the nodes for its pods.",
    "passwordSecret": "As redis.passwordSecret.",
    "podAnnotations": "More annotations of its pods.",
    "podLabels": "More labels of its pods.",
    "podSecurityContext": "Of every pod.",
    "port": "Port of the Service.",
    "priorityClassName": "Priority class of its pods.",
    "pullPolicy": "When the image is pulled.",
    "repository": "The image.",
    "resources": "Requests and limits of its container.",
    "serverAddress": "URL of the Prometheus server.",
    "size": "Size of the volume.",
    "tag": "Its tag.",
    "tolerations": "Tolerations of its pods.",
    "type": "Type of the Service.",
    "urlSecret": "As redis.urlSecret.",
    "user": "Name to log in with.",
}
"""What fields mean that many parts have, where values.yaml says nothing of its own."""


def table() -> str:
    """A line per value, and one per group that has a comment."""
    said = comments()
    lines = []
    for path, value in rows(yaml.safe_load((CHART / "values.yaml").read_text())):
        group = value is None and isinstance(lookup(path), dict)
        if group and not said[path]:
            continue
        text = json.dumps(value, ensure_ascii=False)
        shown = "" if group else f"`{text}`" if len(text) <= LONGEST else "see values.yaml"
        words = said[path] or COMMON.get(path.rpartition(".")[2], "")
        lines.append(f"| `{path}` | {shown} | {escape(words)} |")
    return "\n".join(lines)


def lookup(path: str) -> Any:
    """The value at this path."""
    value: Any = yaml.safe_load((CHART / "values.yaml").read_text())
    for key in path.split("."):
        value = value[key]
    return value


def escape(text: str) -> str:
    """Text that cannot end a cell or be taken for HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def readme() -> str:
    """The whole file."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    kubernetes = re.search(r"[0-9]+\.[0-9]+", chart["kubeVersion"])
    assert kubernetes is not None
    return HEAD.format(kubernetes=f"{kubernetes[0]} or newer") + table() + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        FILE.write_text(readme())
    else:
        sys.stdout.write(readme())
