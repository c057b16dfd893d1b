{{/* Names, labels, images. A component's dict is {root, component, [name], [values]}. */}}

{{- define "turnpool.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- /* 31: KEDA's HPA is keda-hpa-<full>-worker-<pool of 15>, and its name has to fit into the 63 of a label. */ -}}
{{- default $full .Values.fullnameOverride | trunc 31 | trimSuffix "-" -}}
{{- end }}

{{- define "turnpool.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .pool }}
turnpool/pool: {{ . }}
{{- end }}
{{- end }}

{{- define "turnpool.labels" -}}
{{ include "turnpool.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: turnpool
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "turnpool.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "turnpool.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* {image, tag}: the tag to use where the image names neither tag nor digest. */}}
{{- define "turnpool.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .tag .image.tag }}
{{- end -}}
{{- end }}

{{/* {root, component, account}: a component's own ServiceAccount or the one it was told. */}}
{{- define "turnpool.serviceAccountName" -}}
{{- default (ternary (printf "%s-%s" (include "turnpool.fullname" .root) .component) "default" .account.create) .account.name -}}
{{- end }}

{{/* A pool's settings over those of workers.defaults: {root, pool}. */}}
{{- define "turnpool.pool" -}}
{{- mergeOverwrite (deepCopy .root.Values.workers.defaults) (deepCopy (default dict .pool)) | toYaml -}}
{{- end }}

{{/* A pool's queues as JSON, from its list or from its agents: {root, pool: merged}. */}}
{{- define "turnpool.queues" -}}
{{- $queues := .pool.queues -}}
{{- if not $queues -}}
{{- $queues = list -}}
{{- range default .root.Values.agents .pool.agents -}}
{{- $queues = append $queues (include "turnpool.agentQueue" .) -}}
{{- end -}}
{{- end -}}
{{- $queues | uniq | toJson -}}
{{- end }}

{{- define "turnpool.agentQueue" -}}
{{- ternary (last (splitList "@" .)) "turns" (contains "@" .) -}}
{{- end }}

{{/* Seconds from SIGTERM to SIGKILL of a pool's pods. */}}
{{- define "turnpool.workerGrace" -}}
{{- $least := add (ceil .drainSeconds | int) 10 -}}
{{- if kindIs "invalid" .terminationGracePeriodSeconds -}}
{{- add $least 5 -}}
{{- else -}}
{{- int .terminationGracePeriodSeconds -}}
{{- end -}}
{{- end }}

{{/* Seconds from SIGTERM to SIGKILL that an API pod needs at least, its preStop included. */}}
{{- define "turnpool.apiLeastGrace" -}}
{{- add .Values.api.preStopSeconds (ceil .Values.api.drainSeconds | int) 10 -}}
{{- end }}

{{/*
TURNPOOL_NAMESPACE: what keeps this release apart from others on the same Redis and in the same Prometheus. A release's
name alone does not: staging and production mostly have the same one, in different Kubernetes namespaces.
*/}}
{{- define "turnpool.namespace" -}}
{{- default (printf "%s.%s" .Release.Namespace .Release.Name | trunc 64) .Values.namespace -}}
{{- end }}

{{/* Label matchers of this release's metrics. */}}
{{- define "turnpool.poolMatchers" -}}
{{- printf "pool=%q,namespace=%q" (include "turnpool.namespace" .) .Release.Namespace -}}
{{- end }}

{{/* Host names that an API without keys is called by. */}}
{{- define "turnpool.allowedHosts" -}}
{{- $service := printf "%s-api" (include "turnpool.fullname" .) -}}
{{- $hosts := list $service -}}
{{- range list "" ".svc" ".svc.cluster.local" -}}
{{- $hosts = append $hosts (printf "%s.%s%s" $service $.Release.Namespace .) -}}
{{- end -}}
{{- if .Values.ingress.enabled }}{{ $hosts = concat $hosts .Values.ingress.hosts }}{{ end -}}
{{- if .Values.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.httpRoute.hostnames }}{{ end -}}
{{- concat $hosts .Values.api.allowedHosts | uniq | join "," -}}
{{- end }}

{{- define "turnpool.apiUrl" -}}
http://{{ include "turnpool.fullname" . }}-api.{{ .Release.Namespace }}.svc:{{ .Values.api.service.port }}
{{- end }}

{{/* What a Secret of this chart holds, kept over upgrades: {root, secret, key}; base64. */}}
{{- define "turnpool.kept" -}}
{{- $old := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- $data := default dict (get $old "data") -}}
{{- default (randAlphaNum 40 | b64enc) (get $data .key) -}}
{{- end }}
