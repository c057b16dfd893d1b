"""The API: rollout, end of a pod, autoscaling, routes for streams."""

import pytest

from tests.helm.cases import AUTOSCALED_API, INGRESS, KEYS, ROUTE, URL, Values, over
from tests.helm.tools import Manifest, container, env, pick, render
from turnpool.settings import Settings

PING_SECONDS = 15  # the API writes at least so often to every stream


def deployment(*layers: Values) -> Manifest:
    """The API's Deployment."""
    return pick(render(over(URL, *layers)), "Deployment", "-api")


def annotations(**ingress: object) -> dict[str, str]:
    """Annotations of the Ingress with these values."""
    found: dict[str, str] = pick(render(over(URL, INGRESS, {"ingress": ingress})), "Ingress")["metadata"][
        "annotations"
    ]
    return found


def test_a_rollout_never_has_a_pod_too_few() -> None:
    """A new pod is ready before an old one goes."""
    strategy = deployment()["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_pod_waits_before_it_ends() -> None:
    """SIGTERM comes when no new request can, and SIGKILL later than streams take to end."""
    api = deployment()
    assert container(api)["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}
    assert api["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 5 + 30 + 15
    longer = deployment({"api": {"preStopSeconds": 20, "drainSeconds": 60.5}})
    assert longer["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 20 + 61 + 15
    assert env(longer)["TURNPOOL_API_DRAIN_SECONDS"] == "60.5"
    default = Settings.model_fields["api_drain_seconds"].default
    assert float(env(api)["TURNPOOL_API_DRAIN_SECONDS"]) == default


def test_an_open_api_says_so() -> None:
    """Without keys it is open by a value only, and served under the names of its Service and routes."""
    said = env(deployment())
    assert said["TURNPOOL_OPEN"] == "true"
    service = ["rel-turnpool-api"] + [
        f"rel-turnpool-api.agents{end}" for end in ("", ".svc", ".svc.cluster.local")
    ]
    assert said["TURNPOOL_ALLOWED_HOSTS"].split(",") == service
    routed = env(deployment(INGRESS, ROUTE, {"api": {"allowedHosts": ["*.example.com"]}}))
    assert routed["TURNPOOL_ALLOWED_HOSTS"].split(",") == [*service, "a.b", "*.example.com"]
    Settings(allowed_hosts=routed["TURNPOOL_ALLOWED_HOSTS"])


def test_with_keys_an_api_is_not_open() -> None:
    """Whatever api.open says; and keys that somebody brings by a variable are keys."""
    assert not {"TURNPOOL_OPEN", "TURNPOOL_ALLOWED_HOSTS"} & set(env(deployment(KEYS)))
    closed: Values = {"api": {"open": False, "extraEnv": [{"name": "TURNPOOL_API_KEYS", "value": "a:b"}]}}
    assert "TURNPOOL_OPEN" not in env(deployment(closed))


def test_probes() -> None:
    """A pod that has not reached Redis yet gets no requests, and Redis being away restarts none."""
    api = container(deployment())
    assert api["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert api["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_processes_are_pid_1() -> None:
    """Commands are the console scripts themselves: a shell would swallow SIGTERM."""
    manifests = render(over(URL, {"flower": {"enabled": True}}))
    commands = {
        name: container(pick(manifests, "Deployment", name))["command"]
        for name in ("api", "default", "flower")
    }
    assert commands == {
        "api": ["turnpool-api"],
        "default": ["turnpool-worker"],
        "flower": ["turnpool-flower"],
    }


STREAMS: Values = {"api": {"autoscaling": {"streamsPerPod": 500}}}


def test_autoscaling_on_streams_and_cpu() -> None:
    """The HPA reads open streams per pod and CPU, and the Deployment leaves replicas to it."""
    manifests = render(over(URL, AUTOSCALED_API, STREAMS))
    hpa = pick(manifests, "HorizontalPodAutoscaler")["spec"]
    streams, cpu = hpa["metrics"]
    assert streams["pods"] == {
        "metric": {"name": "turnpool_streams"},
        "target": {"type": "AverageValue", "averageValue": "500"},
    }
    assert cpu["containerResource"]["target"]["averageUtilization"] == 70
    assert hpa["scaleTargetRef"]["name"] == "rel-turnpool-api"
    assert "replicas" not in pick(manifests, "Deployment", "-api")["spec"]
    assert deployment()["spec"]["replicas"] == 2


def test_autoscaling_on_one_of_them() -> None:
    """By default only what every cluster has: an HPA never scales in while it cannot read a metric."""
    hpa = pick(render(over(URL, AUTOSCALED_API)), "HorizontalPodAutoscaler")
    assert [each["type"] for each in hpa["spec"]["metrics"]] == ["ContainerResource"]
    no_cpu: Values = {"api": {"autoscaling": {"cpuUtilization": None}}}
    hpa = pick(render(over(URL, AUTOSCALED_API, STREAMS, no_cpu)), "HorizontalPodAutoscaler")
    assert [each["type"] for each in hpa["spec"]["metrics"]] == ["Pods"]


def test_route() -> None:
    """The route sets no limit to the length of a stream."""
    route = pick(render(over(URL, ROUTE)), "HTTPRoute")["spec"]
    (rule,) = route["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    assert rule["backendRefs"] == [{"name": "rel-turnpool-api", "port": 80}]
    assert "sessionPersistence" not in rule
    assert route["parentRefs"] == [{"name": "web", "namespace": "gateways"}]
    assert route["hostnames"] == ["a.b"]


def test_ingress_nginx() -> None:
    """Bytes go on as they come, and a stream may be silent for an hour."""
    found = annotations()
    prefix = "nginx.ingress.kubernetes.io/"
    assert found[f"{prefix}proxy-buffering"] == "off"
    assert found[f"{prefix}proxy-read-timeout"] == "3600"
    assert not [name for name in found if "affinity" in name]
    assert annotations(cookieAffinity=True)[f"{prefix}affinity"] == "cookie"


@pytest.mark.parametrize(
    ("preset", "name", "value"),
    [
        ("nginx.org", "nginx.org/proxy-buffering", "False"),
        ("nginx.org", "nginx.org/proxy-read-timeout", "3600s"),
        ("haproxy", "haproxy.org/timeout-server", "3600s"),
        ("alb", "alb.ingress.kubernetes.io/load-balancer-attributes", "idle_timeout.timeout_seconds=3600"),
    ],
)
def test_ingress_presets(preset: str, name: str, value: str) -> None:
    """Other controllers have their own words for it."""
    assert annotations(preset=preset)[name] == value


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("nginx", "nginx.ingress.kubernetes.io/proxy-body-size"),
        ("nginx.org", "nginx.org/client-max-body-size"),
    ],
)
def test_nginx_takes_bodies_as_large_as_turnpool_does(preset: str, name: str) -> None:
    """Its own limit of 1 MiB is above turnpool's default, and goes with the setting."""
    values = over(URL, INGRESS, {"ingress": {"preset": preset}})
    assert name not in pick(render(values), "Ingress")["metadata"]["annotations"]
    assert Settings.model_fields["max_input_bytes"].default < 2**20
    larger = over(values, {"settings": {"maxInputBytes": 20_000_000}})
    assert pick(render(larger), "Ingress")["metadata"]["annotations"][name] == "20000000"


def test_a_cluster_with_ipv6_only() -> None:
    """One value is the address that all processes listen on."""
    manifests = render(over(URL, {"flower": {"enabled": True}, "listenAddress": "::"}))
    assert pick(manifests, "ConfigMap", "rel-turnpool")["data"]["TURNPOOL_HOST"] == "::"
    assert env(pick(manifests, "Deployment", "-flower"))["TURNPOOL_FLOWER_HOST"] == "::"


def test_ingress_annotations_win() -> None:
    """The user's annotations win over the preset's."""
    mine = {"nginx.ingress.kubernetes.io/proxy-read-timeout": "60", "x": "y"}
    found = annotations(annotations=mine)
    assert mine.items() <= found.items()
    assert found["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"


def test_ingress_hosts() -> None:
    """One rule per host, one without a host where none is named."""
    (rule,) = pick(render(over(URL, INGRESS)), "Ingress")["spec"]["rules"]
    assert rule["host"] == "a.b"
    any_host: Values = {"ingress": {"enabled": True}, "api": {"allowedHosts": ["*"]}}
    (rule,) = pick(render(over(URL, any_host)), "Ingress")["spec"]["rules"]
    assert "host" not in rule


def test_the_shipped_timeout_is_longer_than_the_silence() -> None:
    """A stream with nothing to say has its ping before the proxy loses patience."""
    assert int(annotations()["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > 2 * PING_SECONDS
