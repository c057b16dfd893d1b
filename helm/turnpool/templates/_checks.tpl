{{/* What the schema cannot say: values that contradict each other are refused, with what to do. */}}
{{- define "turnpool.checks" -}}
{{- include "turnpool.checks.redis" . -}}
{{- include "turnpool.checks.pools" . -}}
{{- include "turnpool.checks.keda" . -}}
{{- include "turnpool.checks.rest" . -}}
{{- include "turnpool.checks.open" . -}}
{{- end }}

{{- define "turnpool.checks.redis" -}}
{{- $redis := .Values.redis -}}
{{- $ways := without (list $redis.url $redis.urlSecret.name (ternary "embedded" "" $redis.embedded.enabled)) "" -}}
{{- if ne (len $ways) 1 -}}
{{- fail (printf "redis: set exactly one of redis.url, redis.urlSecret.name and redis.embedded.enabled (%d are set)" (len $ways)) -}}
{{- end -}}
{{- if and .Values.broker.url .Values.broker.urlSecret.name -}}
{{- fail "broker: set broker.url or broker.urlSecret.name, not both" -}}
{{- end -}}
{{- if and .Values.broker.passwordSecret.name (eq (include "turnpool.redis.broker" .) "redis") -}}
{{- fail "broker.passwordSecret: needs broker.url; without one the broker is the store's server and has its password" -}}
{{- end -}}
{{- if and .Values.broker.caSecret.name (eq (include "turnpool.redis.broker" .) "redis") -}}
{{- fail "broker.caSecret: needs broker.url; without one the broker is the store's server and has its certificate" -}}
{{- end -}}
{{- range $which := list "redis" "broker" -}}
{{- $values := get $.Values $which -}}
{{- if regexMatch "^[a-z+]+://[^/@]*:[^/@]*@" $values.url -}}
{{- fail (printf "%s.url: it must hold no password; put that into a Secret and name it in %s.passwordSecret.name" $which $which) -}}
{{- end -}}
{{- if regexMatch "[?&]sentinel_password=" $values.url -}}
{{- fail (printf "%s.url: it must hold no password; put the Sentinels' into a Secret and name it in redis.sentinelPasswordSecret.name" $which) -}}
{{- end -}}
{{- if and (contains "sentinel://" $values.url) (not (regexMatch "[?&]master=[^&]" $values.url)) -}}
{{- fail (printf "%s.url: a sentinel URL needs its master's name: sentinel://host:port/0?master=NAME" $which) -}}
{{- end -}}
{{- if and $values.caSecret.name (not (regexMatch "^rediss([+](cluster|sentinel))?://" $values.url)) (not $values.urlSecret.name) -}}
{{- fail (printf "%s.caSecret: only a rediss:// URL (rediss+sentinel://, rediss+cluster://) is checked against it" $which) -}}
{{- end -}}
{{- end -}}
{{- if and $redis.sentinelPasswordSecret.name (not (contains "sentinel://" (cat $redis.url .Values.broker.url))) (not $redis.urlSecret.name) (not .Values.broker.urlSecret.name) -}}
{{- fail "redis.sentinelPasswordSecret: only a sentinel:// URL needs it" -}}
{{- end -}}
{{- if and (contains "+cluster://" $redis.url) (eq (include "turnpool.redis.broker" .) "redis") -}}
{{- fail "broker.url: needed where the store is a cluster, which Celery cannot use; name a standalone server or Sentinels" -}}
{{- end -}}
{{- end }}

{{- define "turnpool.checks.pools" -}}
{{- $served := dict -}}
{{- if not .Values.workers.pools -}}
{{- fail "workers.pools: at least one pool is needed" -}}
{{- end -}}
{{- range $name, $given := .Values.workers.pools -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$" $name) -}}
{{- fail (printf "workers.pools.%s: a pool's name is 1 to 15 letters a to z, digits and -" $name) -}}
{{- end -}}
{{- $pool := include "turnpool.pool" (dict "root" $ "pool" $given) | fromYaml -}}
{{- $grace := include "turnpool.workerGrace" $pool | int -}}
{{- $least := add (ceil $pool.drainSeconds | int) 10 | int -}}
{{- if lt $grace $least -}}
{{- fail (printf "workers.pools.%s.terminationGracePeriodSeconds: %d is too short, turns would be killed: at least drainSeconds + 10 = %d" $name $grace $least) -}}
{{- end -}}
{{- if lt (int $pool.autoscaling.maxReplicas) (max 1 (int $pool.autoscaling.minReplicas)) -}}
{{- fail (printf "workers.pools.%s.autoscaling: maxReplicas is less than minReplicas" $name) -}}
{{- end -}}
{{- if and (regexMatch "^0%?$" (toString $pool.strategy.maxSurge)) (regexMatch "^0%?$" (toString $pool.strategy.maxUnavailable)) -}}
{{- fail (printf "workers.pools.%s.strategy: maxSurge and maxUnavailable are both 0, so nothing could be rolled out; with maxSurge: 0 set maxUnavailable: 1" $name) -}}
{{- end -}}
{{- range include "turnpool.queues" (dict "root" $ "pool" $pool) | fromJsonArray -}}
{{- if and $.Values.keda.enabled (hasKey $served .) -}}
{{- fail (printf "workers.pools: %s and %s both serve the queue %s; with KEDA each would scale for all of it" (get $served .) $name .) -}}
{{- end -}}
{{- $_ := set $served . $name -}}
{{- end -}}
{{- end -}}
{{- range .Values.agents -}}
{{- $queue := include "turnpool.agentQueue" . -}}
{{- if not (hasKey $served $queue) -}}
{{- fail (printf "workers.pools: no pool serves the queue %s of agent %s, so its turns would wait for ever" $queue .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $given := .Values.workers.pools -}}
{{- include "turnpool.checks.queues" (dict "root" $ "name" $name "pool" (include "turnpool.pool" (dict "root" $ "pool" $given) | fromYaml)) -}}
{{- end -}}
{{- end }}

{{/* Agents and queues of one pool, {root, name, pool}: what it would fail, and what nobody would count. */}}
{{- define "turnpool.checks.queues" -}}
{{- $queues := include "turnpool.queues" . | fromJsonArray -}}
{{- $agents := default .root.Values.agents .pool.agents -}}
{{- $has := list -}}
{{- $served := list -}}
{{- range $agents -}}
{{- $served = append $served (include "turnpool.agentQueue" .) -}}
{{- $has = append $has (printf "%s@%s" (regexFind "^[^=]+" .) (include "turnpool.agentQueue" .)) -}}
{{- end -}}
{{- $counted := list -}}
{{- range .root.Values.agents -}}
{{- $queue := include "turnpool.agentQueue" . -}}
{{- $counted = append $counted $queue -}}
{{- if and (has $queue $queues) (not (has (printf "%s@%s" (regexFind "^[^=]+" .) $queue) $has)) -}}
{{- fail (printf "workers.pools.%s.agents: %s is missing; the pool serves its queue %s and would fail its turns" $.name . $queue) -}}
{{- end -}}
{{- end -}}
{{- $keda := .root.Values.keda -}}
{{- $names := dict -}}
{{- range $queues -}}
{{- if not (has . $served) -}}
{{- fail (printf "workers.pools.%s.queues: no agent of the pool has the queue %s, so nothing would ever wait there" $.name .) -}}
{{- end -}}
{{- if and $keda.enabled (ne $keda.trigger "redis") (not (has . $counted)) -}}
{{- fail (printf "workers.pools.%s: no agent of the list agents has the queue %s, so keda.trigger %s would find no figures of it" $.name . $keda.trigger) -}}
{{- end -}}
{{- $trigger := include "turnpool.triggerName" (dict "kind" "ready" "queue" .) -}}
{{- if and $keda.enabled (hasKey $names $trigger) -}}
{{- fail (printf "workers.pools.%s: KEDA's triggers of the queues %s and %s would have the same name; rename one, or give each a pool" $.name (get $names $trigger) .) -}}
{{- end -}}
{{- $_ := set $names $trigger . -}}
{{- end -}}
{{- end }}

{{- define "turnpool.checks.keda" -}}
{{- if .Values.keda.enabled -}}
{{- if eq .Values.keda.trigger "redis" -}}
{{- if contains "+cluster://" .Values.redis.url -}}
{{- fail "keda.trigger: redis cannot add up the partitions of a cluster; take metrics-api or prometheus" -}}
{{- end -}}
{{- range $which := list "redis" "broker" -}}
{{- if (get $.Values $which).urlSecret.name -}}
{{- fail (printf "keda.trigger: redis cannot read a URL from %s.urlSecret; set %s.url and passwordSecret, or take metrics-api or prometheus" $which $which) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.keda.trigger "metrics-api") .Values.secrets.apiKeys.name (not .Values.keda.metricsApi.tokenSecret.name) -}}
{{- fail "keda.metricsApi.tokenSecret.name: needed for GET /v1/pool, since secrets.apiKeys is set" -}}
{{- end -}}
{{- if and (eq .Values.keda.trigger "prometheus") (not .Values.keda.prometheus.serverAddress) -}}
{{- fail "keda.prometheus.serverAddress: needed for keda.trigger prometheus" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "turnpool.checks.open" -}}
{{- $keyed := not (empty .Values.secrets.apiKeys.name) -}}
{{- range concat .Values.extraEnv .Values.api.extraEnv -}}
{{- if has .name (list "TURNPOOL_API_KEYS" "TURNPOOL_OPEN") }}{{ $keyed = true }}{{ end -}}
{{- end -}}
{{- if and (not $keyed) (not .Values.api.open) -}}
{{- fail "secrets.apiKeys.name: name the Secret with the API's keys, or set api.open: true to serve all who reach the API" -}}
{{- end -}}
{{- if and (not $keyed) .Values.ingress.enabled (not .Values.ingress.hosts) (not .Values.api.allowedHosts) -}}
{{- fail "api.allowedHosts: an API without keys is served under known names only; name those of the ingress in ingress.hosts or here, or * for any" -}}
{{- end -}}
{{- if and (not $keyed) .Values.httpRoute.enabled (not .Values.httpRoute.hostnames) (not .Values.api.allowedHosts) -}}
{{- fail "api.allowedHosts: an API without keys is served under known names only; name those of the route in httpRoute.hostnames or here, or * for any" -}}
{{- end -}}
{{- end }}

{{- define "turnpool.checks.rest" -}}
{{- with .Values.api.autoscaling -}}
{{- if and .enabled (not .streamsPerPod) (not .cpuUtilization) -}}
{{- fail "api.autoscaling: set streamsPerPod, cpuUtilization or both" -}}
{{- end -}}
{{- if and .enabled (lt (int .maxReplicas) (int .minReplicas)) -}}
{{- fail "api.autoscaling: maxReplicas is less than minReplicas" -}}
{{- end -}}
{{- end -}}
{{- $least := include "turnpool.apiLeastGrace" . | int -}}
{{- with .Values.api.terminationGracePeriodSeconds -}}
{{- if lt (int .) $least -}}
{{- fail (printf "api.terminationGracePeriodSeconds: %d is too short, streams and calls that wait would be cut: at least preStopSeconds + drainSeconds + 10 = %d" (int .) $least) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: name the Gateway that the route belongs to" -}}
{{- end -}}
{{- with .Values.networkPolicy -}}
{{- if and .enabled $.Values.monitoring.monitors.enabled (not .metricsFrom) -}}
{{- if or .apiFrom (and .flowerFrom $.Values.flower.enabled) -}}
{{- fail "networkPolicy.metricsFrom: say where Prometheus is; with apiFrom or flowerFrom set and monitoring.monitors enabled it could not read metrics" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tracing.enabled (not .Values.tracing.endpoint) -}}
{{- fail "tracing.endpoint: needed for tracing, for example http://collector.observability:4318" -}}
{{- end -}}
{{- range tuple "api" "workers" "flower" -}}
{{- $account := (get $.Values .).serviceAccount -}}
{{- if and (not $account.create) (not $account.name) -}}
{{- fail (printf "%s.serviceAccount.name: needed where create is false" .) -}}
{{- end -}}
{{- end -}}
{{- end }}
