"""Strict schemas of the custom resources, so far as the chart uses them: any other field is an error.

Sources: KEDA 2.17 (ScaledObject, TriggerAuthentication and the scalers' pages), Prometheus operator 0.80
(monitoring.coreos.com/v1), Gateway API 1.3 (HTTPRoute v1, sessionPersistence of its experimental channel).
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
NUMBER: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}
WHOLE: Schema = {"type": "string", "pattern": "^[1-9][0-9]*$"}
FLAG: Schema = {"enum": ["true", "false"]}
DURATION: Schema = {"type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$"}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"}


def fields(required: dict[str, Schema], /, **optional: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": required | optional,
        "required": list(required),
    }


def many(item: Schema, least: int = 1) -> Schema:
    """A list."""
    return {"type": "array", "items": item, "minItems": least}


def resource(group: str, kind: str, spec: Schema) -> Schema:
    """A whole object."""
    metadata = fields({"name": NAME, "namespace": NAME, "labels": LABELS}, annotations=LABELS)
    return fields(
        {"apiVersion": {"const": group}, "kind": {"const": kind}, "metadata": metadata, "spec": spec}
    )


def trigger(kind: str, metadata: Schema) -> Schema:
    """One trigger of a ScaledObject; its name is a variable of the formula."""
    name = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}
    return fields(
        {"type": {"const": kind}, "name": name, "metadata": metadata},
        authenticationRef=fields({"name": NAME}),
    )


REDIS = {"listName": TEXT, "listLength": NUMBER, "databaseIndex": NUMBER}
TRIGGER: Schema = {
    "oneOf": [
        trigger("redis", fields({"address": TEXT} | REDIS, username=TEXT, enableTLS=FLAG)),
        trigger(
            "redis-sentinel",
            fields(
                {"addresses": TEXT, "sentinelMaster": TEXT} | REDIS,
                username=TEXT,
                sentinelUsername=TEXT,
                enableTLS=FLAG,
            ),
        ),
        trigger(
            "metrics-api",
            fields(
                {"url": TEXT, "format": {"const": "json"}, "valueLocation": TEXT, "targetValue": NUMBER},
                authMode={"const": "bearer"},
            ),
        ),
        trigger(
            "prometheus",
            fields({"serverAddress": TEXT, "query": TEXT, "threshold": NUMBER, "ignoreNullValues": FLAG}),
        ),
    ]
}
POLICY = fields(
    {
        "type": {"enum": ["Pods", "Percent"]},
        "value": {"type": "integer", "minimum": 1},
        "periodSeconds": COUNT,
    }
)
DIRECTION = fields(
    {},
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    policies=many(POLICY),
)
SCALED_OBJECT = fields(
    {
        "scaleTargetRef": fields({"name": NAME}),
        "minReplicaCount": COUNT,
        "maxReplicaCount": {"type": "integer", "minimum": 1},
        "pollingInterval": COUNT,
        "cooldownPeriod": COUNT,
        "fallback": fields(
            {"failureThreshold": COUNT, "replicas": COUNT, "behavior": {"const": "currentReplicasIfHigher"}}
        ),
        "advanced": fields(
            {
                "horizontalPodAutoscalerConfig": fields(
                    {"behavior": fields({}, scaleUp=DIRECTION, scaleDown=DIRECTION)}
                ),
                "scalingModifiers": fields(
                    {"formula": TEXT, "target": WHOLE, "metricType": {"const": "AverageValue"}}
                ),
            }
        ),
        "triggers": many(TRIGGER, 2),
    }
)
PARAMETER = fields(
    {"parameter": {"enum": ["password", "sentinelPassword", "tls", "ca", "token"]}, "name": NAME, "key": TEXT}
)
SELECTOR = fields({"matchLabels": LABELS})
ENDPOINT = fields(
    {
        "port": TEXT,
        "path": {"const": "/metrics"},
        "interval": DURATION,
        "honorLabels": {"type": "boolean"},
        "relabelings": many(fields({"targetLabel": {"enum": ["job", "pool"]}, "replacement": TEXT})),
    }
)
RULE = fields({"expr": TEXT}, alert=TEXT, record=TEXT, labels=LABELS, annotations=LABELS, **{"for": DURATION})
RULES = fields({"groups": many(fields({"name": TEXT, "rules": many(RULE)}, interval=DURATION))})
RULES["properties"]["groups"]["items"]["properties"]["rules"]["items"]["oneOf"] = [
    {"required": ["alert"]},
    {"required": ["record"]},
]
ROUTE_RULE = fields(
    {
        "matches": many(fields({"path": fields({"type": {"const": "PathPrefix"}, "value": TEXT})})),
        "timeouts": fields({"request": DURATION, "backendRequest": DURATION}),
        "backendRefs": many(fields({"name": NAME, "port": COUNT})),
    },
    sessionPersistence=fields({"sessionName": TEXT, "type": {"enum": ["Cookie", "Header"]}}),
)
PARENT = fields({"name": NAME}, namespace=NAME, sectionName=NAME, port=COUNT)

KEDA = "keda.sh/v1alpha1"
OPERATOR = "monitoring.coreos.com/v1"

SCHEMAS: dict[str, Schema] = {
    "ScaledObject": resource(KEDA, "ScaledObject", SCALED_OBJECT),
    "TriggerAuthentication": resource(
        KEDA, "TriggerAuthentication", fields({"secretTargetRef": many(PARAMETER)})
    ),
    "ServiceMonitor": resource(
        OPERATOR, "ServiceMonitor", fields({"selector": SELECTOR, "endpoints": many(ENDPOINT)})
    ),
    "PodMonitor": resource(
        OPERATOR,
        "PodMonitor",
        fields({"selector": SELECTOR, "podMetricsEndpoints": many(ENDPOINT)}, podTargetLabels=many(TEXT)),
    ),
    "PrometheusRule": resource(OPERATOR, "PrometheusRule", RULES),
    "HTTPRoute": resource(
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        fields({"parentRefs": many(PARENT), "rules": many(ROUTE_RULE)}, hostnames=many(TEXT)),
    ),
}
