"""Values that the chart must take, by what each shows, and values that it must refuse, with what it says."""

from copy import deepcopy
from typing import Any

Values = dict[str, Any]

OPEN: Values = {"api": {"open": True}}
URL: Values = {"redis": {"url": "redis://redis:6379/0"}, **OPEN}
KEDA: Values = {"keda": {"enabled": True}}
SECRET = "made-by-hand"


def over(*layers: Values) -> Values:
    """One tree of values out of several; the later win."""
    merged: Values = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = over(merged[key], value) if both else deepcopy(value)
    return merged


EMBEDDED: Values = {"redis": {"embedded": {"enabled": True}}, **OPEN}
HIDDEN_URL: Values = {"redis": {"urlSecret": {"name": SECRET}}, **OPEN}
TLS: Values = {
    "redis": {
        "url": "rediss://user@redis.example.com:6380/2",
        "passwordSecret": {"name": SECRET},
        "caSecret": {"name": "redis-ca"},
    },
    **OPEN,
}
SENTINEL: Values = {
    "redis": {"url": "sentinel://s1:26379,s2/1?master=main", "passwordSecret": {"name": SECRET}},
    **OPEN,
}
SENTINEL_TLS: Values = {
    "redis": {
        "url": "rediss+sentinel://user@s1:26379,s2/1?master=main&sentinel_username=watcher",
        "passwordSecret": {"name": SECRET},
        "sentinelPasswordSecret": {"name": "sentinels"},
        "caSecret": {"name": "redis-ca"},
    },
    **OPEN,
}
BROKER: Values = over(
    TLS,
    {
        "broker": {
            "url": "redis://broker:6379/3",
            "passwordSecret": {"name": "broker-secret", "key": "pw"},
        }
    },
)
TWO_POOLS: Values = {
    "agents": [
        "chat=turnpool_workers.agents.chat:agent",
        "paint=mine.paint:agent@gpu",
        "video=mine.video:agent@long-gpu",
    ],
    "workers": {
        "pools": {
            "default": {"queues": ["turns"], "concurrency": 200},
            "gpu": {
                "agents": ["paint=mine.paint:agent@gpu", "video=mine.video:agent@long-gpu"],
                "concurrency": 4,
                "drainSeconds": 300.5,
                "image": {"repository": "mine/agents-gpu", "tag": "7"},
                "resources": {"limits": {"nvidia.com/gpu": 1}},
                "nodeSelector": {"accelerator": "l4"},
                "runtimeClassName": "gvisor",
                "podDisruptionBudget": {"enabled": False},
            },
        }
    },
}
KEYS: Values = {
    "secrets": {
        "apiKeys": {"name": "keys"},
        "adminKey": {"name": "keys"},
        "llmApiKey": {"name": "llm", "key": "openai"},
    }
}
METRICS_API: Values = over(KEDA, {"keda": {"trigger": "metrics-api"}})
PROMETHEUS: Values = over(
    KEDA, {"keda": {"trigger": "prometheus", "prometheus": {"serverAddress": "http://prometheus:9090"}}}
)
FLOWER: Values = {"flower": {"enabled": True}}
ROUTE: Values = {
    "httpRoute": {
        "enabled": True,
        "parentRefs": [{"name": "web", "namespace": "gateways"}],
        "hostnames": ["a.b"],
    }
}
INGRESS: Values = {
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "hosts": ["a.b"],
        "tls": [{"secretName": "t", "hosts": ["a.b"]}],
    }
}
NETWORK: Values = {"networkPolicy": {"enabled": True}}
MONITORING: Values = {
    "monitoring": {
        "monitors": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True},
        "dashboard": {"enabled": True},
    }
}
AUTOSCALED_API: Values = {"api": {"autoscaling": {"enabled": True}}}
PEER = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateways"}}}]
EXTRAS: Values = {
    "commonLabels": {"team": "agents"},
    "imagePullSecrets": [{"name": "registry"}],
    "image": {"repository": "registry.example.com/turnpool", "digest": "sha256:" + "0" * 64},
    "settings": {
        "maxQueued": 2_000_000,
        "flushMs": 50.5,
        "llmBaseUrl": "http://vllm:8000/v1",
        "logLevel": "DEBUG",
    },
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
    "extraVolumes": [{"name": "data", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "data", "mountPath": "/data"}],
    "extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-map"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-text",
    ],
    "api": {
        "extraEnv": [{"name": "ONLY_API", "value": "1"}],
        "podAnnotations": {"note": "api"},
        "podLabels": {"tier": "front"},
        "topologySpreadConstraints": [],
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "terminationGracePeriodSeconds": 60,
    },
    "workers": {
        "defaults": {"extraEnv": [{"name": "ONLY_WORKER", "value": "1"}], "podLabels": {"tier": "back"}}
    },
}
EVERYTHING: Values = over(
    EMBEDDED,
    KEYS,
    TWO_POOLS,
    KEDA,
    FLOWER,
    ROUTE,
    INGRESS,
    NETWORK,
    MONITORING,
    AUTOSCALED_API,
    {
        "workers": {"podDeletionCost": True},
        "flower": {"persistence": {"enabled": True, "storageClass": "ssd"}},
        "httpRoute": {"sessionPersistence": True},
        "ingress": {"cookieAffinity": True},
        "networkPolicy": {
            "apiFrom": PEER,
            "metricsFrom": PEER,
            "flowerFrom": PEER,
            "extraEgress": [{"to": PEER}],
        },
        "tracing": {"enabled": True, "endpoint": "http://collector:4318"},
    },
)

CASES: dict[str, Values] = {
    "least": URL,
    "embedded": EMBEDDED,
    "embedded, password given": over(EMBEDDED, {"redis": {"passwordSecret": {"name": SECRET}}}),
    "embedded, no volume": over(EMBEDDED, {"redis": {"embedded": {"persistence": {"enabled": False}}}}),
    "embedded, storage class": over(
        EMBEDDED, {"redis": {"embedded": {"persistence": {"storageClass": "ssd"}}}}
    ),
    "url from a Secret": HIDDEN_URL,
    "broker url from a Secret": over(URL, {"broker": {"urlSecret": {"name": SECRET}}}),
    "tls": TLS,
    "sentinel": SENTINEL,
    "sentinel, tls": SENTINEL_TLS,
    "broker": BROKER,
    "keys": over(URL, KEYS),
    "two pools": over(URL, TWO_POOLS),
    "two pools, default taken away": over(URL, {"workers": {"pools": {"default": None, "a": {}, "b": {}}}}),
    "keda": over(URL, KEDA),
    "keda, embedded": over(EMBEDDED, KEDA),
    "keda, tls": over(TLS, KEDA),
    "keda, tls of a known authority": over(TLS, KEDA, {"redis": {"caSecret": {"name": ""}}}),
    "keda, sentinel": over(SENTINEL, KEDA),
    "keda, sentinel, tls": over(SENTINEL_TLS, KEDA),
    "keda, broker": over(BROKER, KEDA),
    "keda, two pools": over(URL, TWO_POOLS, KEDA),
    "keda, to zero": over(URL, KEDA, {"workers": {"defaults": {"autoscaling": {"minReplicas": 0}}}}),
    "keda, paused": over(URL, KEDA, {"keda": {"annotations": {"autoscaling.keda.sh/paused": "true"}}}),
    "keda, metrics-api": over(URL, METRICS_API),
    "keda, metrics-api with key": over(
        URL, KEYS, METRICS_API, {"keda": {"metricsApi": {"tokenSecret": {"name": "pool-key"}}}}
    ),
    "keda, metrics-api, url from a Secret": over(HIDDEN_URL, METRICS_API),
    "keda, prometheus": over(URL, PROMETHEUS),
    "keda, prometheus with key": over(
        URL, PROMETHEUS, {"keda": {"prometheus": {"matchers": 'namespace="a"', "authenticationRef": "prom"}}}
    ),
    "deletion cost": over(URL, {"workers": {"podDeletionCost": True}}),
    "flower": over(URL, FLOWER),
    "flower, kept": over(
        URL, FLOWER, {"flower": {"persistence": {"enabled": True}, "existingSecret": SECRET}}
    ),
    "route": over(URL, ROUTE),
    "route with cookie": over(URL, ROUTE, {"httpRoute": {"sessionPersistence": True}}),
    **{
        f"ingress {preset}": over(URL, INGRESS, {"ingress": {"preset": preset, "cookieAffinity": True}})
        for preset in ("nginx", "nginx.org", "haproxy", "alb", "none")
    },
    "ingress, any host": over(URL, {"ingress": {"enabled": True}, "api": {"allowedHosts": ["*"]}}),
    "network": over(URL, NETWORK),
    "network, embedded": over(EMBEDDED, FLOWER, NETWORK),
    "network, closed": over(
        URL, NETWORK, METRICS_API, {"networkPolicy": {"apiFrom": PEER, "metricsFrom": PEER}}
    ),
    "monitoring": over(URL, MONITORING),
    "monitoring, flower": over(URL, MONITORING, FLOWER),
    "api autoscaled": over(URL, AUTOSCALED_API),
    "api autoscaled by streams": over(
        URL, AUTOSCALED_API, {"api": {"autoscaling": {"streamsPerPod": 500, "cpuUtilization": None}}}
    ),
    "no budgets": over(
        URL,
        {
            "api": {"podDisruptionBudget": {"enabled": False}},
            "workers": {"defaults": {"podDisruptionBudget": {"enabled": False}}},
        },
    ),
    "accounts of others": over(
        URL,
        {
            "api": {"serviceAccount": {"create": False, "name": "mine"}, "preStopSeconds": 0},
            "workers": {"serviceAccount": {"name": "named", "annotations": {"role": "x"}}},
        },
    ),
    "tracing": over(URL, {"tracing": {"enabled": True, "endpoint": "http://collector:4318"}}),
    "extras": over(URL, EXTRAS),
    "no surge": over(URL, {"workers": {"defaults": {"strategy": {"maxSurge": 0, "maxUnavailable": 1}}}}),
    "ipv6 only": over(URL, FLOWER, {"listenAddress": "::"}),
    "a new agent for workers first": over(
        URL,
        TWO_POOLS,
        {
            "workers": {
                "defaults": {"agents": ["chat=turnpool_workers.agents.chat:agent", "new=mine.new:agent"]}
            }
        },
    ),
    "long name": over(URL, {"fullnameOverride": "a" * 60, "workers": {"pools": {"fifteen-letters": {}}}}),
    "everything": EVERYTHING,
}
