"""Tells Kubernetes how dear this pod is: scale-in then takes the pods that run the fewest turns first.

The pod's own annotation `controller.kubernetes.io/pod-deletion-cost` is kept at the number of turns
it runs. Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#pod-deletion-cost
"""

import os
import ssl
from pathlib import Path

import httpx

from turnpool.errors import SettingsError
from turnpool.logs import get_logger
from turnpool_workers import metrics

log = get_logger(__name__)

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
# Seconds between two looks: a write for each turn would load the Kubernetes API, as its documentation warns.
LOOK_SECONDS = 10.0
TIMEOUT = 5.0
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class DeletionCost:
    """The annotation of this worker's pod. Raises SettingsError outside of one."""

    def __init__(self, account: Path = ACCOUNT) -> None:
        try:
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            pod, namespace = os.environ["POD_NAME"], os.environ["POD_NAMESPACE"]
            authority = ssl.create_default_context(cafile=str(account / "ca.crt"))
        except (KeyError, OSError) as error:
            raise SettingsError(
                "TURNPOOL_POD_DELETION_COST needs a pod with POD_NAME, POD_NAMESPACE and the token of its "
                f"service account; missing: {error}"
            ) from error
        # An IPv6 address stands in brackets.
        place = f"[{host}]" if ":" in host else host
        self._url = f"https://{place}:{port}/api/v1/namespaces/{namespace}/pods/{pod}"
        self._token = account / "token"
        self._client = httpx.AsyncClient(verify=authority, timeout=TIMEOUT, trust_env=False)
        self._told: int | None = None

    async def tell(self, running: int) -> None:
        """Write the number if it has changed. A failure is counted and logged; the next look tries again."""
        if running == self._told:
            return
        try:
            # Read each time: Kubernetes replaces the token every hour or so.
            token = self._token.read_text().strip()
            answer = await self._client.patch(
                self._url,
                headers={
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/merge-patch+json",
                },
                json={"metadata": {"annotations": {ANNOTATION: str(running)}}},
            )
            answer.raise_for_status()
        except (httpx.HTTPError, OSError) as error:
            metrics.COST_FAILURES.inc()
            log.warning("deletion_cost_not_set", error=str(error))
        else:
            self._told = running

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()
