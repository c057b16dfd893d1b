"""Values that the chart must refuse, and words that its message has to have."""

from tests.helm.cases import (
    EMBEDDED,
    FLOWER,
    KEDA,
    KEYS,
    METRICS_API,
    MONITORING,
    NETWORK,
    PEER,
    PROMETHEUS,
    ROUTE,
    SECRET,
    TWO_POOLS,
    URL,
    Values,
    over,
)


def pool(**changes: object) -> Values:
    """The pool `default` with these values."""
    return over(URL, {"workers": {"pools": {"default": changes}}})


REFUSED: dict[str, tuple[Values, str]] = {
    "no redis": ({}, "exactly one of redis.url, redis.urlSecret.name and redis.embedded.enabled (0 are set)"),
    "two redis": (over(URL, EMBEDDED), "(2 are set)"),
    "password in the URL": ({"redis": {"url": "redis://:pw@redis"}}, "redis.passwordSecret.name"),
    "password in the broker's URL": (
        over(URL, {"broker": {"url": "redis://u:pw@b"}}),
        "broker.passwordSecret.name",
    ),
    "unknown scheme": ({"redis": {"url": "http://redis"}}, "/redis/url"),
    "sentinel without master": ({"redis": {"url": "sentinel://a:1,b:2/0"}}, "?master=NAME"),
    "password of the Sentinels in the URL": (
        {"redis": {"url": "sentinel://a:1?master=m&sentinel_password=x"}},
        "redis.sentinelPasswordSecret.name",
    ),
    "password of no Sentinel": (
        over(URL, {"redis": {"sentinelPasswordSecret": {"name": SECRET}}}),
        "only a sentinel:// URL needs it",
    ),
    "password in a cluster's URL": (
        {"redis": {"url": "rediss+cluster://u:pw@a:1,b:2"}},
        "redis.passwordSecret.name",
    ),
    "cluster as broker": ({"redis": {"url": "redis+cluster://a:1,b:2"}}, "broker.url: needed"),
    "cluster in the broker's URL": (over(URL, {"broker": {"url": "redis+cluster://a:1"}}), "/broker/url"),
    "cluster for KEDA's redis": (
        over(KEDA, {"redis": {"url": "redis+cluster://a:1,b:2"}, "broker": {"url": "redis://b"}}),
        "metrics-api or prometheus",
    ),
    "authority without TLS": (over(URL, {"redis": {"caSecret": {"name": "ca"}}}), "only a rediss:// URL"),
    "broker by two ways": (
        over(URL, {"broker": {"url": "redis://b", "urlSecret": {"name": SECRET}}}),
        "broker.url or broker.urlSecret.name, not both",
    ),
    "password of no broker": (
        over(URL, {"broker": {"passwordSecret": {"name": SECRET}}}),
        "needs broker.url",
    ),
    "authority of no broker": (over(URL, {"broker": {"caSecret": {"name": SECRET}}}), "needs broker.url"),
    "grace too short": (
        pool(terminationGracePeriodSeconds=119),
        "PeriodSeconds: 119 is too short, turns would be killed: at least drainSeconds + 10 = 120",
    ),
    "grace too short for a broken second": (
        pool(terminationGracePeriodSeconds=310, drainSeconds=300.5),
        "drainSeconds + 10 = 311",
    ),
    "grace of the API too short": (
        over(URL, {"api": {"terminationGracePeriodSeconds": 12}}),
        "preStopSeconds + drainSeconds + 10 = 45",
    ),
    "grace of the API shorter than its drain": (
        over(URL, {"api": {"terminationGracePeriodSeconds": 60, "drainSeconds": 45.5}}),
        "preStopSeconds + drainSeconds + 10 = 61",
    ),
    "neither keys nor open": (over(URL, {"api": {"open": False}}), "secrets.apiKeys.name: name the Secret"),
    "only an admin key": (
        over(URL, {"api": {"open": False}, "secrets": {"adminKey": {"name": "keys"}}}),
        "or set api.open: true",
    ),
    "open to unknown names of an ingress": (
        over(URL, {"ingress": {"enabled": True}}),
        "api.allowedHosts: an API without keys",
    ),
    "open to unknown names of a route": (
        over(URL, ROUTE, {"httpRoute": {"hostnames": []}}),
        "api.allowedHosts: an API without keys",
    ),
    "allowed host with a port": (over(URL, {"api": {"allowedHosts": ["a.b:80"]}}), "/api/allowedHosts/0"),
    "namespace that no key can have": (over(URL, {"namespace": "a:b"}), "/namespace"),
    "pool of the wrong size": (pool(autoscaling={"minReplicas": 5, "maxReplicas": 4}), "maxReplicas is less"),
    "API of the wrong size": (
        over(URL, {"api": {"autoscaling": {"enabled": True, "minReplicas": 50}}}),
        "maxReplicas is less",
    ),
    "API scaled by nothing": (
        over(URL, {"api": {"autoscaling": {"enabled": True, "cpuUtilization": None}}}),
        "streamsPerPod, cpuUtilization or both",
    ),
    "no pool": (over(URL, {"workers": {"pools": {"default": None}}}), "at least one pool"),
    "queue of nobody": (
        over(URL, {"agents": ["a=b:c@gpu"], "workers": {"pools": {"default": {"queues": ["turns"]}}}}),
        "no pool serves the queue gpu of agent a=b:c@gpu",
    ),
    "queue of two pools": (
        over(URL, KEDA, {"workers": {"pools": {"other": {}}}}),
        "default and other both serve the queue turns",
    ),
    "agent that its queue's pool lacks": (
        over(
            URL,
            TWO_POOLS,
            {
                "workers": {
                    "pools": {
                        "gpu": {"agents": ["paint=mine.paint:agent@gpu"], "queues": ["gpu", "long-gpu"]}
                    }
                }
            },
        ),
        "workers.pools.gpu.agents: video=mine.video:agent@long-gpu is missing",
    ),
    "queue without an agent": (pool(queues=["turns", "typo"]), "no agent of the pool has the queue typo"),
    "queue that the API does not count": (
        over(URL, METRICS_API, {"workers": {"pools": {"old": {"agents": ["old=mine:old@old"]}}}}),
        "no agent of the list agents has the queue old, so keda.trigger metrics-api",
    ),
    "queues whose triggers have one name": (
        over(URL, KEDA, {"agents": ["a=b:c@x-y", "d=e:f@x_y"]}),
        "the queues x-y and x_y would have the same name",
    ),
    "rollout that cannot move": (pool(strategy={"maxSurge": 0}), "with maxSurge: 0 set maxUnavailable: 1"),
    "rollout that cannot move a per cent": (
        pool(strategy={"maxSurge": "0%", "maxUnavailable": "0%"}),
        "with maxSurge: 0 set maxUnavailable: 1",
    ),
    "prometheus shut out": (
        over(URL, NETWORK, MONITORING, {"networkPolicy": {"apiFrom": PEER}}),
        "networkPolicy.metricsFrom: say where Prometheus is",
    ),
    "prometheus shut out of Flower": (
        over(URL, NETWORK, MONITORING, FLOWER, {"networkPolicy": {"flowerFrom": PEER}}),
        "networkPolicy.metricsFrom",
    ),
    "agent that is none": (over(URL, {"agents": ["chat"]}), "/agents/0"),
    "pool with a wrong name": (over(URL, {"workers": {"pools": {"Big_One": {}}}}), "workers.pools.Big_One"),
    "keda and a hidden URL": (
        over({"redis": {"urlSecret": {"name": SECRET}}}, KEDA),
        "metrics-api or prometheus",
    ),
    "keda and a hidden broker": (
        over(URL, KEDA, {"broker": {"urlSecret": {"name": SECRET}}}),
        "broker.urlSecret",
    ),
    "metrics-api without key": (over(URL, KEYS, METRICS_API), "keda.metricsApi.tokenSecret.name"),
    "prometheus without server": (
        over(URL, PROMETHEUS, {"keda": {"prometheus": {"serverAddress": ""}}}),
        "keda.prometheus.serverAddress",
    ),
    "trigger that is none": (over(URL, {"keda": {"trigger": "cron"}}), "/keda/trigger"),
    "route to nowhere": (over(URL, {"httpRoute": {"enabled": True}}), "httpRoute.parentRefs"),
    "traces to nowhere": (over(URL, {"tracing": {"enabled": True}}), "tracing.endpoint"),
    "account of nobody": (
        over(URL, {"api": {"serviceAccount": {"create": False}}}),
        "api.serviceAccount.name",
    ),
    "no slots": (pool(concurrency=0), "/workers/pools/default"),
    "misspelt": (over(URL, {"worker": {}}), "'worker' not allowed"),
    "misspelt in a pool": (
        over(URL, TWO_POOLS, {"workers": {"pools": {"gpu": {"concurency": 4}}}}),
        "concurency",
    ),
    "misspelt setting": (over(URL, {"settings": {"maxQueue": 1}}), "maxQueue"),
    "setting out of bounds": (over(URL, {"settings": {"leaseSeconds": 0.1}}), "/settings/leaseSeconds"),
    "tag that is a number": (over(URL, {"image": {"tag": 1.0}}), "/image/tag"),
    "digest that is none": (over(URL, {"image": {"digest": "latest"}}), "/image/digest"),
}
