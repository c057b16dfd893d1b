"""The metrics of a process as Prometheus reads them: each with the pool that it is of.

The label is told by the process itself and not left to a scrape's configuration: without it the alerts
of one pool would be hidden by the good health of another one in the same Prometheus.
"""

import copy
from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.registry import Collector

LABEL = "pool"


class PoolMetrics(Collector):
    """All metrics of the process, labelled with the namespace of its pool."""

    def __init__(self, namespace: str, registry: Collector = REGISTRY) -> None:
        self._pool = {LABEL: namespace}
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; those of the registry stay as they are."""
        for metric in self._registry.collect():
            labelled = copy.copy(metric)
            labelled.samples = [
                sample._replace(labels={**sample.labels, **self._pool}) for sample in metric.samples
            ]
            yield labelled

    def restricted_registry(self, names: Iterable[str]) -> Collector:
        """Return the metrics of these names only; prometheus_client's server asks for it by `name[]`."""
        if not isinstance(self._registry, CollectorRegistry):
            return self
        return PoolMetrics(self._pool[LABEL], self._registry.restricted_registry(names))
