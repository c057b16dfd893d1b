{{/* What the pods of API, workers and Flower share. Each takes {root, component, values, [pool]}. */}}

{{/* Files of /run/secrets/turnpool as a list of projected sources; {root, component}. */}}
{{- define "turnpool.secretSources" -}}
{{- $root := .root -}}
{{- $files := list
    (dict "file" "turnpool_redis_password" "from" (include "turnpool.redis.password" (dict "root" $root "which" "redis") | fromJson))
    (dict "file" "turnpool_sentinel_password" "from" $root.Values.redis.sentinelPasswordSecret)
    (dict "file" "turnpool_redis_url" "from" $root.Values.redis.urlSecret)
    (dict "file" "turnpool_broker_password" "from" $root.Values.broker.passwordSecret)
    (dict "file" "turnpool_broker_url" "from" $root.Values.broker.urlSecret)
-}}
{{- if eq .component "api" -}}
{{- $files = append $files (dict "file" "turnpool_api_keys" "from" $root.Values.secrets.apiKeys) -}}
{{- $files = append $files (dict "file" "turnpool_admin_key" "from" $root.Values.secrets.adminKey) -}}
{{- else if eq .component "worker" -}}
{{- $files = append $files (dict "file" "turnpool_llm_api_key" "from" $root.Values.secrets.llmApiKey) -}}
{{- else if eq .component "flower" -}}
{{- $name := include "turnpool.flowerSecret" $root -}}
{{- $files = append $files (dict "file" "turnpool_flower_password" "from" (dict "name" $name "key" $root.Values.flower.passwordKey)) -}}
{{- $files = append $files (dict "file" "turnpool_flower_cookie_secret" "from" (dict "name" $name "key" $root.Values.flower.cookieSecretKey)) -}}
{{- end -}}
{{- range $files }}
{{- if .from.name }}
- secret:
    name: {{ .from.name }}
    items:
      - key: {{ .from.key }}
        path: {{ .file }}
{{- end }}
{{- end }}
{{- end }}

{{- define "turnpool.flowerSecret" -}}
{{- default (printf "%s-flower" (include "turnpool.fullname" .)) .Values.flower.existingSecret -}}
{{- end }}

{{/* Certificates of authorities, as projected sources. */}}
{{- define "turnpool.caSources" -}}
{{- range $which := list "redis" "broker" }}
{{- with (get $.Values $which).caSecret }}
{{- if .name }}
- secret:
    name: {{ .name }}
    items:
      - key: {{ .key }}
        path: {{ $which }}.crt
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "turnpool.env" -}}
{{- if include "turnpool.secretSources" . }}
- name: TURNPOOL_SECRETS_DIR
  value: /run/secrets/turnpool
{{- end }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- if .root.Values.tracing.enabled }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)
{{- end }}
{{- with concat .root.Values.extraEnv .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "turnpool.envFrom" -}}
- configMapRef:
    name: {{ include "turnpool.fullname" . }}
{{- with .Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "turnpool.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if include "turnpool.secretSources" . }}
- name: secrets
  mountPath: /run/secrets/turnpool
  readOnly: true
{{- end }}
{{- if include "turnpool.caSources" .root }}
- name: ca
  mountPath: /run/secrets/turnpool-ca
  readOnly: true
{{- end }}
{{- with concat .root.Values.extraVolumeMounts .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "turnpool.volumes" -}}
- name: tmp
  emptyDir: {}
{{- with include "turnpool.secretSources" . }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with include "turnpool.caSources" .root }}
- name: ca
  projected:
    defaultMode: 0440
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with concat .root.Values.extraVolumes .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of a pod: its labels, and a checksum of the configuration so that a change rolls it out. */}}
{{- define "turnpool.podMetadata" -}}
labels:
  {{- /* No versions: an upgrade of the chart alone rolls nothing out. */}}
  {{- include "turnpool.selectorLabels" . | nindent 2 }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/config: {{ include "turnpool.config" .root | sha256sum }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Fields of a pod's spec apart from its containers and volumes; account is the component's serviceAccount. */}}
{{- define "turnpool.podSpec" -}}
serviceAccountName: {{ include "turnpool.serviceAccountName" . }}
automountServiceAccountToken: {{ default false .token }}
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" }}
{{- with get $.values $field }}
{{ $field }}: {{ if kindIs "string" . }}{{ . }}{{ else }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Evenly over zones and nodes, counted per version so that a rollout does not skew it. */}}
{{- define "turnpool.topologySpread" -}}
{{- if kindIs "invalid" .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "turnpool.selectorLabels" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- else }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
