{{/*
Annotations per controller, {root, values}: bytes go on as they come, and a stream may be silent for streamTimeoutSeconds.
nginx refuses bodies over 1 MiB by itself, which is above turnpool's own default.
*/}}

{{- define "turnpool.ingress.none" -}}
{}
{{- end }}

{{- define "turnpool.ingress.nginx" -}}
nginx.ingress.kubernetes.io/proxy-buffering: "off"
nginx.ingress.kubernetes.io/proxy-request-buffering: "off"
nginx.ingress.kubernetes.io/proxy-http-version: "1.1"
nginx.ingress.kubernetes.io/proxy-read-timeout: {{ .values.streamTimeoutSeconds | quote }}
nginx.ingress.kubernetes.io/proxy-send-timeout: {{ .values.streamTimeoutSeconds | quote }}
{{- with .root.Values.settings.maxInputBytes }}
nginx.ingress.kubernetes.io/proxy-body-size: {{ int64 . | quote }}
{{- end }}
{{- if .values.cookieAffinity }}
nginx.ingress.kubernetes.io/affinity: cookie
nginx.ingress.kubernetes.io/session-cookie-name: turnpool
nginx.ingress.kubernetes.io/session-cookie-samesite: Lax
{{- end }}
{{- end }}

{{/* The free version has no affinity by cookie. */}}
{{- define "turnpool.ingress.nginx.org" -}}
nginx.org/proxy-buffering: "False"
nginx.org/proxy-read-timeout: {{ printf "%ds" (int .values.streamTimeoutSeconds) }}
nginx.org/proxy-send-timeout: {{ printf "%ds" (int .values.streamTimeoutSeconds) }}
{{- with .root.Values.settings.maxInputBytes }}
nginx.org/client-max-body-size: {{ int64 . | quote }}
{{- end }}
{{- end }}

{{- define "turnpool.ingress.haproxy" -}}
haproxy.org/timeout-server: {{ printf "%ds" (int .values.streamTimeoutSeconds) }}
{{- if .values.cookieAffinity }}
haproxy.org/cookie-persistence: turnpool
{{- end }}
{{- end }}

{{- define "turnpool.ingress.alb" -}}
alb.ingress.kubernetes.io/target-type: ip
alb.ingress.kubernetes.io/healthcheck-path: /readyz
alb.ingress.kubernetes.io/load-balancer-attributes: {{ printf "idle_timeout.timeout_seconds=%d" (min 4000 (int .values.streamTimeoutSeconds)) }}
{{- if .values.cookieAffinity }}
alb.ingress.kubernetes.io/target-group-attributes: stickiness.enabled=true,stickiness.type=lb_cookie
{{- end }}
{{- end }}
