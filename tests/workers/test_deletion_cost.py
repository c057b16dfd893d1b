"""The pod's deletion cost, told to a stand-in for the Kubernetes API over real TLS."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from prometheus_client import REGISTRY

from tests.serving import serving
from turnpool.errors import SettingsError
from turnpool_workers.deletion_cost import ANNOTATION, DeletionCost

pytestmark = pytest.mark.anyio

Requests = list[tuple[str, dict[str, str], object]]


class Api:
    """Remembers requests; answers each with the status that is set."""

    def __init__(self) -> None:
        self.requests: Requests = []
        self.status = 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *rest = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in rest)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((line, headers, json.loads(body)))
        writer.write(
            f"HTTP/1.1 {self.status} X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}".encode()
        )
        await writer.drain()


@asynccontextmanager
async def pod(monkeypatch: pytest.MonkeyPatch, account: Path) -> AsyncIterator[tuple[Api, DeletionCost]]:
    """A pod, as it looks from inside, and its cluster's API."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(account / "ca.crt"))
    (account / "token").write_text("first-token\n")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    api = Api()
    async with serving(api.serve, context) as port:
        for name, value in {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(port),
            "POD_NAME": "worker-1",
            "POD_NAMESPACE": "agents",
        }.items():
            monkeypatch.setenv(name, value)
        cost = DeletionCost(account)
        try:
            yield api, cost
        finally:
            await cost.close()


async def test_the_number_is_written_when_it_has_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To the pod's own annotation, with the token as it is now, which Kubernetes replaces."""
    async with pod(monkeypatch, tmp_path) as (api, cost):
        await cost.tell(7)
        await cost.tell(7)
        (tmp_path / "token").write_text("second-token\n")
        await cost.tell(0)
    assert [line for line, *_ in api.requests] == [
        "PATCH /api/v1/namespaces/agents/pods/worker-1 HTTP/1.1"
    ] * 2
    assert [headers["authorization"] for _, headers, _ in api.requests] == [
        "Bearer first-token",
        "Bearer second-token",
    ]
    assert api.requests[0][1]["content-type"] == "application/merge-patch+json"
    assert [body for *_, body in api.requests] == [
        {"metadata": {"annotations": {ANNOTATION: number}}} for number in ("7", "0")
    ]


async def test_a_refusal_is_counted_and_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing right must not disturb the worker."""

    def failures() -> float:
        return REGISTRY.get_sample_value("turnpool_deletion_cost_failures_total") or 0

    before = failures()
    async with pod(monkeypatch, tmp_path) as (api, cost):
        api.status = 403
        await cost.tell(3)
        api.status = 200
        await cost.tell(3)
        assert len(api.requests) == 2
    assert failures() == before + 1


def test_outside_of_a_pod_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the name of what is missing."""
    for name in ("KUBERNETES_SERVICE_HOST", "POD_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match="KUBERNETES_SERVICE_HOST"):
        DeletionCost(tmp_path)
