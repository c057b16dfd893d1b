"""The pod of `helm test`."""

import importlib.util
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.helm.cases import KEDA, TWO_POOLS, URL, Values, over
from tests.helm.tools import CHART, pick, render

METRICS = """\
turnpool_queue_workers{pool="rel",queue="turns"} 2.0
turnpool_queue_workers{pool="rel",queue="gpu"} 0.0
"""


@pytest.fixture
def missing() -> Callable[[str, list[str]], str]:
    """The script's function; the script is a file of the chart and no module."""
    spec = importlib.util.spec_from_file_location("ready", CHART / "ready.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[str, list[str]], str] = module.missing
    return found


@pytest.fixture
def api() -> Iterator[str]:
    """URL of a server that is ready and has these metrics."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer every path alike."""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_ready(missing: Callable[[str, list[str]], str], api: str) -> None:
    """Nothing is missing where every queue has a worker."""
    assert missing(api, ["turns"]) == ""


def test_no_worker(missing: Callable[[str, list[str]], str], api: str) -> None:
    """A queue without worker is named, whether the API knows it or not."""
    assert missing(api, ["turns", "gpu", "video"]) == "no worker on gpu, video"


def test_no_api(missing: Callable[[str, list[str]], str]) -> None:
    """Without an API its address is named."""
    assert missing("http://127.0.0.1:1", []).startswith("http://127.0.0.1:1: ")


@pytest.mark.parametrize(
    ("values", "queues"),
    [
        (over(URL, TWO_POOLS), ["turns", "gpu", "long-gpu"]),
        (over(URL, KEDA, {"workers": {"defaults": {"autoscaling": {"minReplicas": 0}}}}), []),
    ],
)
def test_hook(values: Values, queues: list[str]) -> None:
    """The hook runs this script, and asks for no worker of a pool that may be at zero."""
    pod = pick(render(values), "Pod", "-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (only,) = pod["spec"]["containers"]
    assert only["command"][:2] == ["python", "-c"]
    assert only["command"][2].strip() == (CHART / "ready.py").read_text().strip()
    assert only["args"] == ["http://rel-turnpool-api.agents.svc:80", *queues]
