{{/* Environment of API, workers and Flower. */}}
{{- define "turnpool.config" -}}
{{- $redis := dict "root" . "which" "redis" -}}
{{- $broker := dict "root" . "which" "broker" -}}
TURNPOOL_HOST: {{ .Values.listenAddress | quote }}
TURNPOOL_NAMESPACE: {{ include "turnpool.namespace" . | quote }}
TURNPOOL_AGENTS: {{ join "," .Values.agents | quote }}
{{- with include "turnpool.redis.processUrl" $redis }}
TURNPOOL_REDIS_URL: {{ . | quote }}
{{- end }}
{{- with include "turnpool.redis.processUrl" $broker }}
TURNPOOL_BROKER_URL: {{ . | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if not (kindIs "invalid" $value) }}
{{- /* A large number of a values file is a float, which would be written as 1e+06. */}}
{{- if and (kindIs "float64" $value) (eq $value (floor $value)) }}{{ $value = int64 $value }}{{ end }}
TURNPOOL_{{ $name | snakecase | upper }}: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- if .Values.tracing.enabled }}
TURNPOOL_TRACING: "true"
OTEL_EXPORTER_OTLP_ENDPOINT: {{ .Values.tracing.endpoint | quote }}
{{- end }}
{{- end }}
