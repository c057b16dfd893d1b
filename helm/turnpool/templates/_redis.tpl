{{/* Where the store and the broker are. Each takes {root, which: "redis" or "broker"}. */}}

{{- define "turnpool.redis.password" -}}
{{- $values := get .root.Values .which -}}
{{- if and (eq .which "redis") .root.Values.redis.embedded.enabled (not $values.passwordSecret.name) -}}
{{- dict "name" (printf "%s-redis" (include "turnpool.fullname" .root)) "key" "redis-password" | toJson -}}
{{- else -}}
{{- $values.passwordSecret | toJson -}}
{{- end -}}
{{- end }}

{{- define "turnpool.redis.url" -}}
{{- $values := get .root.Values .which -}}
{{- if and (eq .which "redis") .root.Values.redis.embedded.enabled -}}
redis://{{ include "turnpool.fullname" .root }}-redis:6379/0
{{- else -}}
{{- $values.url -}}
{{- end -}}
{{- end }}

{{/* The URL as processes get it, with the place of the authority's certificate. */}}
{{- define "turnpool.redis.processUrl" -}}
{{- $url := include "turnpool.redis.url" . -}}
{{- $url -}}
{{- if and $url (get .root.Values .which).caSecret.name -}}
{{ ternary "&" "?" (contains "?" $url) }}ssl_ca_certs=/run/secrets/turnpool-ca/{{ .which }}.crt
{{- end -}}
{{- end }}

{{/* Name of the Secret with the Sentinels' password, empty where the server has no Sentinels. */}}
{{- define "turnpool.redis.sentinelSecret" -}}
{{- if contains "sentinel://" (include "turnpool.redis.url" .) -}}
{{ .root.Values.redis.sentinelPasswordSecret.name }}
{{- end -}}
{{- end }}

{{/* "broker" if that is a server of its own, else "redis". */}}
{{- define "turnpool.redis.broker" -}}
{{- ternary "broker" "redis" (or .Values.broker.url .Values.broker.urlSecret.name | not | not) -}}
{{- end }}

{{/* Parts of the URL as JSON: sentinel, tls, user, hosts (list with ports), db, master, sentinelUser. */}}
{{- define "turnpool.redis.parts" -}}
{{- $url := include "turnpool.redis.url" . -}}
{{- $scheme := regexFind "^[a-z+]+" $url -}}
{{- $sentinel := contains "sentinel" $scheme -}}
{{- $rest := trimPrefix (printf "%s://" $scheme) $url -}}
{{- $place := regexFind "^[^/?]*" $rest -}}
{{- $port := ternary "26379" "6379" $sentinel -}}
{{- $hosts := list -}}
{{- range splitList "," (last (splitList "@" $place)) -}}
{{- $hosts = append $hosts (ternary (printf "%s:%s" . $port) . (regexMatch "^[^:]*$|\\]$" .)) -}}
{{- end -}}
{{- dict
    "sentinel" $sentinel
    "tls" (hasPrefix "rediss" $scheme)
    "user" (ternary (first (splitList "@" $place)) "" (contains "@" $place))
    "hosts" $hosts
    "db" (default "0" (regexFind "^[0-9]+" (trimPrefix "/" (trimPrefix $place $rest))))
    "master" (regexFind "[?&]master=[^&]+" $rest | regexFind "[^=]+$")
    "sentinelUser" (regexFind "[?&]sentinel_username=[^&]+" $rest | regexFind "[^=]+$")
  | toJson -}}
{{- end }}

{{/* Where KEDA's redis triggers find the server: the type, and metadata for it. */}}
{{- define "turnpool.redis.trigger" -}}
{{- $parts := include "turnpool.redis.parts" . | fromJson -}}
{{- $metadata := dict "databaseIndex" $parts.db -}}
{{- if $parts.sentinel -}}
{{- $_ := set $metadata "addresses" (join "," $parts.hosts) -}}
{{- $_ := set $metadata "sentinelMaster" $parts.master -}}
{{- with $parts.sentinelUser }}{{ $_ := set $metadata "sentinelUsername" . }}{{ end -}}
{{- else -}}
{{- /* KEDA runs in a namespace of its own, so the service's name alone does not lead there. */ -}}
{{- $address := first $parts.hosts -}}
{{- if and (eq .which "redis") .root.Values.redis.embedded.enabled -}}
{{- $address = printf "%s-redis.%s.svc:6379" (include "turnpool.fullname" .root) .root.Release.Namespace -}}
{{- end -}}
{{- $_ := set $metadata "address" $address -}}
{{- end -}}
{{- with $parts.user }}{{ $_ := set $metadata "username" . }}{{ end -}}
{{- /* With an authority of one's own TLS is switched on in the TriggerAuthentication; KEDA refuses it in both. */ -}}
{{- if and $parts.tls (not (get .root.Values .which).caSecret.name) }}{{ $_ := set $metadata "enableTLS" "true" }}{{ end -}}
{{- dict "type" (ternary "redis-sentinel" "redis" $parts.sentinel) "metadata" $metadata | toJson -}}
{{- end }}

{{/* Name of the server's TriggerAuthentication, empty where it needs none. */}}
{{- define "turnpool.redis.triggerAuth" -}}
{{- $password := include "turnpool.redis.password" . | fromJson -}}
{{- if or $password.name (include "turnpool.redis.sentinelSecret" .) (get .root.Values .which).caSecret.name -}}
{{ include "turnpool.fullname" .root }}-{{ .which }}
{{- end -}}
{{- end }}

{{/* Configuration of the embedded server: every write is kept but for the last second, nothing is evicted. */}}
{{- define "turnpool.redis.config" -}}
dir /data
appendonly yes
appendfsync everysec
maxmemory {{ .maxmemory }}
maxmemory-policy noeviction
{{- end }}
