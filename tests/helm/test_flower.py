"""Flower: its password, cookies, table of tasks."""

from tests.helm.cases import FLOWER, SECRET, URL, Values, over
from tests.helm.tools import container, env, kinds, pick, render, secret_files


def flower(*layers: Values) -> list[dict[str, object]]:
    """What is rendered with Flower."""
    return render(over(URL, FLOWER, *layers))


def test_off_by_default() -> None:
    """Without it there is no Flower and no Secret."""
    manifests = render(URL)
    assert not [each for each in manifests if each["metadata"]["name"].endswith("-flower")]
    assert "Secret" not in kinds(manifests)


def test_password_of_the_chart() -> None:
    """By default the chart makes the password and the cookie secret."""
    manifests = flower()
    files = secret_files(pick(manifests, "Deployment", "-flower"))
    made = pick(manifests, "Secret", "-flower")
    assert files["turnpool_flower_password"] == ("rel-turnpool-flower", "password")
    assert files["turnpool_flower_cookie_secret"] == ("rel-turnpool-flower", "cookie-secret")
    assert set(made["data"]) == {"password", "cookie-secret"}


def test_password_of_the_user() -> None:
    """With an existing Secret the chart makes none."""
    manifests = flower({"flower": {"existingSecret": SECRET}})
    files = secret_files(pick(manifests, "Deployment", "-flower"))
    assert files["turnpool_flower_password"] == (SECRET, "password")
    assert "Secret" not in kinds(manifests)


def test_reachable_and_probed() -> None:
    """It listens for the cluster and is asked where no password is needed."""
    deployment = pick(flower(), "Deployment", "-flower")
    assert env(deployment)["TURNPOOL_FLOWER_HOST"] == "0.0.0.0"  # noqa: S104 - of a pod, behind a Service
    assert container(deployment)["readinessProbe"]["httpGet"]["path"] == "/healthcheck"


def test_persistence() -> None:
    """Its table of tasks outlives the pod if wanted; two pods never share it."""
    assert "PersistentVolumeClaim" not in kinds(flower())
    manifests = flower({"flower": {"persistence": {"enabled": True}}})
    deployment = pick(manifests, "Deployment", "-flower")
    assert env(deployment)["TURNPOOL_FLOWER_PERSISTENT"] == "/data/flower"
    assert {"name": "data", "mountPath": "/data"} in container(deployment)["volumeMounts"]
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert pick(manifests, "PersistentVolumeClaim")["metadata"]["name"] == "rel-turnpool-flower"
