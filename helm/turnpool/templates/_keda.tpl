{{/* Triggers of one queue as a YAML list: {root, queue, slots}. Their names are variables of the formula. */}}

{{- define "turnpool.triggers" -}}
{{- include (printf "turnpool.triggers.%s" .root.Values.keda.trigger) . -}}
{{- end }}

{{- define "turnpool.triggerName" -}}
{{ .kind }}_{{ .queue | replace "-" "_" }}
{{- end }}

{{/*
Turns that wait behind one of their own session count nowhere: no more workers would make them start. The broker's list has
one wake-up for each turn that is ready.
*/}}
{{/* KEDA asks Redis for the type of the key: LLEN of the broker's list, ZCARD of the store's sorted set of leases. */}}
{{- define "turnpool.triggers.redis" -}}
{{- $namespace := include "turnpool.namespace" .root -}}
{{- $lists := list
    (dict "kind" "ready" "which" (include "turnpool.redis.broker" .root) "key" (printf "%s:%s" $namespace .queue))
    (dict "kind" "running" "which" "redis" "key" (printf "%s:{0}:leases:%s" $namespace .queue))
-}}
{{- range $list := $lists }}
{{- $server := dict "root" $.root "which" $list.which }}
{{- $trigger := include "turnpool.redis.trigger" $server | fromJson }}
- type: {{ $trigger.type }}
  name: {{ include "turnpool.triggerName" (dict "kind" $list.kind "queue" $.queue) }}
  metadata:
    {{- toYaml $trigger.metadata | nindent 4 }}
    listName: {{ $list.key | quote }}
    listLength: {{ $.slots | quote }}
  {{- with include "turnpool.redis.triggerAuth" $server }}
  authenticationRef:
    name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "turnpool.triggers.metrics-api" -}}
{{- range $kind := list "ready" "running" }}
- type: metrics-api
  name: {{ include "turnpool.triggerName" (dict "kind" $kind "queue" $.queue) }}
  metadata:
    url: {{ include "turnpool.apiUrl" $.root }}/v1/pool
    format: json
    valueLocation: {{ printf "queues.#(name==\"%s\").%s" $.queue $kind | squote }}
    targetValue: {{ $.slots | quote }}
    {{- if $.root.Values.keda.metricsApi.tokenSecret.name }}
    authMode: bearer
  authenticationRef:
    name: {{ include "turnpool.fullname" $.root }}-pool
    {{- end }}
{{- end }}
{{- end }}

{{/* Every API pod says the same, so max; a missing answer is a failure and not zero. */}}
{{- define "turnpool.triggers.prometheus" -}}
{{- $prometheus := .root.Values.keda.prometheus }}
{{- $matchers := default (printf "namespace=\"%s\"" .root.Release.Namespace) $prometheus.matchers }}
{{- $matchers = printf "queue=%q,pool=%q,%s" .queue (include "turnpool.namespace" .root) $matchers }}
{{- range $kind, $metric := dict "ready" "turnpool_queue_ready" "running" "turnpool_queue_running" }}
- type: prometheus
  name: {{ include "turnpool.triggerName" (dict "kind" $kind "queue" $.queue) }}
  metadata:
    serverAddress: {{ $prometheus.serverAddress }}
    query: {{ printf "max(%s{%s})" $metric $matchers | squote }}
    threshold: {{ $.slots | quote }}
    ignoreNullValues: "false"
  {{- with $prometheus.authenticationRef }}
  authenticationRef:
    name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
