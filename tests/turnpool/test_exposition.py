"""Metrics with the label of their pool."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from turnpool.exposition import PoolMetrics


def test_every_sample_has_the_pool_and_the_registry_none() -> None:
    """Two pools' labels on one registry do not meet, however often they are read."""
    registry = CollectorRegistry()
    Counter("made", "Things made.", ["kind"], registry=registry).labels("a").inc(2)
    Histogram("time_seconds", "Time.", registry=registry).observe(0.1)
    plain = generate_latest(registry)
    for pool in ("one", "two", "one"):
        text = generate_latest(PoolMetrics(pool, registry)).decode()
        samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
        assert samples
        assert {sample.labels["pool"] for sample in samples} == {pool}
        assert 'made_total{kind="a",pool="%s"} 2.0' % pool in text  # noqa: UP031 - braces
    assert generate_latest(registry) == plain


def test_a_scrape_may_ask_for_some_names() -> None:
    """prometheus_client's server gives only those."""
    registry = CollectorRegistry()
    for name in ("one", "two"):
        Counter(name, "Things.", registry=registry).inc()
    text = generate_latest(PoolMetrics("p", registry).restricted_registry(["one_total"])).decode()
    assert 'one_total{pool="p"} 1.0' in text
    assert "two_total" not in text
