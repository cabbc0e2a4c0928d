{{/*
What the agent's configuration gets from the values, because the pod must agree with it: a list of
  path   of the key in the configuration
  value  what it gets
  from   the value that says so; without it, the chart has it so
*/}}
{{- define "snapshot.derived" -}}
- { path: logLevel, value: {{ .Values.daemonset.snapshotLogLevel | quote }}, from: daemonset.snapshotLogLevel }
- { path: runtime.type, value: {{ .Values.runtime.type | quote }}, from: runtime.type }
- { path: runtime.socketPath, value: {{ include "snapshot.runtimeSocket" . | quote }}, from: runtime.socketPath }
- { path: storage.type, value: {{ .Values.storage.type | quote }}, from: storage.type }
- { path: storage.accessMode, value: {{ .Values.storage.accessMode | quote }}, from: storage.accessMode }
- { path: storage.basePath, value: {{ .Values.storage.pvc.basePath | quote }}, from: storage.pvc.basePath }
- { path: storage.key.file, value: /etc/snapshot-key/record.key }
- { path: storage.key.create, value: false }
- { path: storage.key.acceptedDirectory, value: /etc/snapshot-key }
- { path: host.procRoot, value: /host/proc }
- { path: host.cgroupRoot, value: /host/cgroup }
- { path: paths.stateDir, value: /var/lib/snapshot-agent }
- { path: paths.runDir, value: /run/snapshot-agent }
- { path: http.address, value: ":{{ .Values.metrics.port }}", from: metrics.port }
- { path: api.socketPath, value: /run/snapshot-agent-api/agent.sock }
{{- if include "snapshot.tcp" . }}
- { path: api.listen, value: ":{{ .Values.api.tcp.port }}", from: api.tcp.port }
- { path: api.tls.certificateFile, value: /etc/snapshot-tls/tls.crt }
- { path: api.tls.keyFile, value: /etc/snapshot-tls/tls.key }
- { path: api.tls.clientCaFile, value: /etc/snapshot-tls/ca.crt }
{{- else }}
- { path: api.listen, value: "", from: api.tcp.enabled }
{{- end }}
- path: api.clients
  from: api.clients
  value: {{ include "snapshot.clients" . }}
{{- if .Values.gpu.enabled }}
- { path: cuda.podResourcesSocket, value: {{ printf "%s/pod-resources/kubelet.sock" .Values.kubelet.rootDir | quote }}, from: kubelet.rootDir }
{{- else }}
- { path: cuda.podResourcesSocket, value: "", from: gpu.enabled }
{{- end }}
{{- end -}}

{{/* Who may call over TCP, as JSON: the operator, unless the values say something else of it, and those of the values. */}}
{{- define "snapshot.clients" -}}
{{- $clients := list -}}
{{- if include "snapshot.tcp" . -}}
{{- $names := list -}}
{{- range .Values.api.clients }}{{ $names = append $names .name }}{{ end -}}
{{- if not (has "snapshot-operator" $names) -}}
{{- $namespaces := ternary (list .Release.Namespace) (list "*") .Values.rbac.namespaceRestricted -}}
{{- $clients = list (dict "name" "snapshot-operator" "namespaces" $namespaces) -}}
{{- end -}}
{{- end -}}
{{- concat $clients .Values.api.clients | default list | toJson -}}
{{- end -}}

{{/*
A configuration with what is derived. A key that contradicts that is refused. Takes: config, rows (path, value, from), name (of the value that
it is), pod (whose it is).
*/}}
{{- define "snapshot.withDerived" -}}
{{- $config := deepCopy .config -}}
{{- $name := .name -}}
{{- $pod := .pod -}}
{{- range $row := .rows -}}
{{- $node := $config -}}
{{- $keys := splitList "." $row.path -}}
{{- range initial $keys -}}
{{- if not (kindIs "map" (get $node .)) }}{{ $_ := set $node . dict }}{{ end -}}
{{- $node = get $node . -}}
{{- end -}}
{{- $key := last $keys -}}
{{- if and (hasKey $node $key) (ne (get $node $key | toJson) (toJson $row.value)) -}}
{{- $given := get $node $key | toJson -}}
{{- if $row.from -}}
{{- fail (printf "%s.%s is %s, but %s makes it %s: remove %s.%s, and set %s where that is not what you want" $name $row.path $given $row.from (toJson $row.value) $name $row.path $row.from) -}}
{{- else -}}
{{- fail (printf "%s.%s is %s, but %s is made for %s: remove %s.%s" $name $row.path $given $pod (toJson $row.value) $name $row.path) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $node $key $row.value -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The agent's whole configuration. */}}
{{- define "snapshot.config" -}}
{{- include "snapshot.checkMaps" . -}}
{{- include "snapshot.withDerived" (dict "config" .Values.config "rows" (include "snapshot.derived" . | fromYamlArray) "name" "config" "pod" "the agent's pod") -}}
{{- end -}}

{{/* What of the configuration counts only after a restart of the agent: all but the keys that it reads again by itself. */}}
{{- define "snapshot.configForRestart" -}}
{{- $config := include "snapshot.config" . | fromYaml -}}
{{- range .Files.Get "files/live-keys.yaml" | fromYamlArray -}}
{{- $node := $config -}}
{{- $keys := splitList "." . -}}
{{- range initial $keys -}}
{{- $node = kindIs "map" (get $node .) | ternary (get $node .) dict -}}
{{- end -}}
{{- $_ := unset $node (last $keys) -}}
{{- if and (eq (len $keys) 2) (not $node) }}{{ $_ := unset $config (first $keys) }}{{ end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
