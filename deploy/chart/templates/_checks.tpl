{{/* What values.schema.json cannot say. Each refusal is one sentence that names the value and what to do. */}}

{{/* A quantity of memory in bytes; 0 for a notation that is not looked at. */}}
{{- define "snapshot.bytes" -}}
{{- $text := toString . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- if regexMatch "^[0-9]+([kMGT]|[KMGT]i)?$" $text -}}
{{- mul (regexFind "^[0-9]+" $text | int64) (get $units (regexReplaceAll "^[0-9]+" $text "")) -}}
{{- else }}0{{ end -}}
{{- end -}}

{{- define "snapshot.checks" -}}
{{- include "snapshot.checkMaps" . -}}
{{- include "snapshot.checkNames" . -}}
{{- include "snapshot.checkStorage" . -}}
{{- include "snapshot.checkMounts" . -}}
{{- include "snapshot.checkPod" . -}}
{{- include "snapshot.checkAccess" . -}}
{{- include "snapshot.checkCredentials" . -}}
{{- include "snapshot.checkConfig" . -}}
{{- if .Values.operator.enabled }}{{ include "snapshot.checkOperator" . }}{{ end -}}
{{- end -}}

{{- define "snapshot.checkNames" -}}
{{- if not (has .Values.runtime.type (list "containerd" "crio")) -}}
{{- fail (printf "runtime.type must be 'containerd' or 'crio', got '%v'" .Values.runtime.type) -}}
{{- end -}}
{{- end -}}

{{- define "snapshot.checkStorage" -}}
{{- with .Values.storage -}}
{{- if ne .type "pvc" -}}
{{- fail (printf "storage.type must be 'pvc', got '%v': no other is implemented" .type) -}}
{{- end -}}
{{- if not (has .accessMode (list "agentMount" "podMount")) -}}
{{- fail (printf "storage.accessMode must be 'agentMount' or 'podMount', got '%v'" .accessMode) -}}
{{- end -}}
{{- if ne .pvc.basePath (clean .pvc.basePath) -}}
{{- fail (printf "storage.pvc.basePath must be an absolute, clean path, got '%s': did you mean '%s'?" .pvc.basePath (clean .pvc.basePath)) -}}
{{- end -}}
{{- if or .s3.uri .oci.uri -}}
{{- fail "storage.s3.uri and storage.oci.uri are reserved: artifacts are kept on a PersistentVolumeClaim only. Leave both empty" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether something mounted at a path would hide what the agent's container has there. */}}
{{- define "snapshot.isTaken" -}}
{{- $taken := has . (list "/" "/opt" "/root" "/run" "/tmp" "/var" "/var/lib" "/var/run") -}}
{{- range list "/bin" "/dev" "/etc" "/host" "/lib" "/lib64" "/opt/snapshot-agent" "/proc" "/run/snapshot-agent" "/run/snapshot-agent-api" "/sbin" "/sys" "/usr" "/var/lib/snapshot-agent" -}}
{{- if or (eq $ .) (hasPrefix (printf "%s/" .) $) }}{{ $taken = true }}{{ end -}}
{{- end -}}
{{- if $taken }}true{{ end -}}
{{- end -}}

{{- define "snapshot.checkMounts" -}}
{{- $path := .Values.storage.pvc.basePath -}}
{{- if and (eq .Values.storage.accessMode "agentMount") (include "snapshot.isTaken" $path) -}}
{{- fail (printf "storage.pvc.basePath is %s, where the agent's container has files of its own: mount the volume elsewhere" $path) -}}
{{- end -}}
{{- $socket := include "snapshot.runtimeSocket" . -}}
{{- if include "snapshot.isTaken" (dir $socket) -}}
{{- fail (printf "runtime.socketPath is %s, but its directory is mounted into the agent's container, which has files of its own at %s: the socket needs a directory of its own" $socket (dir $socket)) -}}
{{- end -}}
{{- $storage := include "snapshot.runtimeStorage" . -}}
{{- if include "snapshot.isTaken" $storage -}}
{{- fail (printf "runtime.storagePath is %s, where the agent's container has files of its own: name the runtime's own directory" $storage) -}}
{{- end -}}
{{- end -}}

{{- define "snapshot.checkPod" -}}
{{- if .Values.daemonset.affinity.nodeAffinity -}}
{{- fail "daemonset.affinity.nodeAffinity is the chart's own (the agent runs on linux, amd64): choose nodes with daemonset.nodeSelector" -}}
{{- end -}}
{{- $surge := dig "rollingUpdate" "maxSurge" 0 .Values.daemonset.updateStrategy | toString -}}
{{- if not (has $surge (list "0" "0%")) -}}
{{- fail (printf "daemonset.updateStrategy.rollingUpdate.maxSurge is %s, but a second agent on a node is not ready until the first has ended, so that an update would never go on: remove it, and set maxUnavailable" $surge) -}}
{{- end -}}
{{- $drain := dig "limits" "drainSeconds" 300 .Values.config -}}
{{- $grace := .Values.daemonset.terminationGracePeriodSeconds -}}
{{- if lt (float64 $grace) (addf (float64 $drain) 30) -}}
{{- fail (printf "daemonset.terminationGracePeriodSeconds is %v, but operations may go on for %v s when the agent is asked to stop (config.limits.drainSeconds), and undoing what is left takes up to 30 s: set at least %v" $grace $drain (addf (float64 $drain) 30)) -}}
{{- end -}}
{{- $limit := include "snapshot.bytes" (dig "limits" "memory" "" .Values.daemonset.resources) | int64 -}}
{{- $work := dig "memory" "workBytes" 8589934592 .Values.config | int64 -}}
{{- if and (gt $limit 0) (le $limit $work) -}}
{{- fail (printf "daemonset.resources.limits.memory is %s, but config.memory.workBytes alone may take %d bytes of it: raise the limit, or lower workBytes" (toString .Values.daemonset.resources.limits.memory) $work) -}}
{{- end -}}
{{- end -}}

{{- define "snapshot.checkAccess" -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false: set serviceAccount.name to the account that the agent is to run as" -}}
{{- end -}}
{{- if and .Values.api.clients (not (include "snapshot.tcp" .)) -}}
{{- fail "api.clients says who may call over TCP, but nobody can: set api.tcp.enabled, or leave api.clients empty" -}}
{{- end -}}
{{- if and (include "snapshot.tcp" .) (eq (int .Values.api.tcp.port) (int .Values.metrics.port)) -}}
{{- fail (printf "api.tcp.port and metrics.port are both %v: each needs one of its own" .Values.metrics.port) -}}
{{- end -}}
{{- end -}}

{{- define "snapshot.checkCredentials" -}}
{{- with .Values.credentials -}}
{{- if lt (int .caDays) (mul 3 .certificateDays | int) -}}
{{- fail (printf "credentials.caDays is %v, but an authority must live at least three times as long as what it signs (credentials.certificateDays): set at least %d" .caDays (mul 3 .certificateDays)) -}}
{{- end -}}
{{- end -}}
{{- $names := list (include "snapshot.recordKeySecret" .) (include "snapshot.caSecret" .) (include "snapshot.agentTlsSecret" .) (include "snapshot.operatorTlsSecret" .) -}}
{{- if ne (len $names) (uniq $names | len) -}}
{{- fail (printf "each Secret of the credentials needs a name of its own, got %s" (join ", " $names)) -}}
{{- end -}}
{{- end -}}

{{- define "snapshot.checkConfig" -}}
{{- if hasKey .Values.config "nodeName" -}}
{{- fail "config.nodeName would be the same on every node: remove it. The agent gets the name of its node from Kubernetes" -}}
{{- end -}}
{{- $namespace := dig "kubernetes" "namespace" "" .Values.config -}}
{{- if $namespace -}}
{{- fail (printf "config.kubernetes.namespace is %q, but rbac.namespaceRestricted decides which pods the agent serves: true for those of the release's namespace, false for all. Remove config.kubernetes.namespace" $namespace) -}}
{{- end -}}
{{- $high := dig "retention" "highPercent" 0 .Values.config | float64 -}}
{{- $low := dig "retention" "lowPercent" 0 .Values.config | float64 -}}
{{- if not (or (and (eq $high 0.0) (eq $low 0.0)) (and (gt $low 0.0) (le $low $high))) -}}
{{- fail (printf "config.retention.highPercent is %v and lowPercent is %v: both must be 0, or lowPercent above 0 and no higher than highPercent" $high $low) -}}
{{- end -}}
{{- end -}}

{{/* One release of a cluster has the operator: its webhook and its CRDs are the cluster's. `helm template` cannot look. */}}
{{- define "snapshot.checkOperator" -}}
{{- $other := (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "snapshot-operator-release").metadata | default dict -}}
{{- $name := dig "annotations" "meta.helm.sh/release-name" "" $other -}}
{{- $namespace := dig "annotations" "meta.helm.sh/release-namespace" "" $other -}}
{{- if and $other (not (and (eq $name .Release.Name) (eq $namespace .Release.Namespace))) -}}
{{- fail (printf "operator.enabled: release %s in namespace %s has the operator of this cluster already, with its webhook and CRDs: set operator.enabled to false here, or there first" ($name | default "(unknown)") ($namespace | default "(unknown)")) -}}
{{- end -}}
{{- with .Values.operator -}}
{{- if and (not .serviceAccount.create) (not .serviceAccount.name) -}}
{{- fail "operator.serviceAccount.create is false: set operator.serviceAccount.name to the account that the operator is to run as" -}}
{{- end -}}
{{- if eq (int .webhook.port) (int .metricsPort) -}}
{{- fail (printf "operator.webhook.port and operator.metricsPort are both %v: each needs one of its own" .metricsPort) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.rbac.namespaceRestricted .Values.operator.namespaces -}}
{{- fail (printf "operator.namespaces is %s, but rbac.namespaceRestricted allows for namespace %s only: leave it empty, or set rbac.namespaceRestricted to false" (toJson .Values.operator.namespaces) .Release.Namespace) -}}
{{- end -}}
{{- with .Values.storage -}}
{{- if and (eq .accessMode "podMount") .pvc.create (or (eq .pvc.storageClass "-") (eq .pvc.accessMode "ReadWriteOncePod")) -}}
{{- fail "operator.enabled: in podMount mode the operator makes the claims (storage.pvc.create), and knows neither storage.pvc.storageClass \"-\" nor storage.pvc.accessMode ReadWriteOncePod: choose others, or make the claims yourself" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* null takes a value away altogether, and then nothing can be looked up in it. Asked for by whatever reads these first. */}}
{{- define "snapshot.checkMaps" -}}
{{- if not (kindIs "map" .Values.config) -}}
{{- fail "config is null, which leaves the agent without a configuration: leave it out, or say {}, for the defaults" -}}
{{- end -}}
{{- if not (kindIs "map" .Values.operator.config) -}}
{{- fail "operator.config is null, which leaves the operator without a configuration: leave it out, or say {}, for the defaults" -}}
{{- end -}}
{{- end -}}
