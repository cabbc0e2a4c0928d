{{/* What the operator is configured with, and its pod. */}}

{{/* What must agree with the pod, the rights, or the agents. */}}
{{- define "snapshot.operatorDerived" -}}
- { path: logLevel, value: {{ quote .Values.operator.logLevel }}, from: operator.logLevel }
{{- if .Values.rbac.namespaceRestricted }}
- { path: namespaces, value: [{{ quote .Release.Namespace }}], from: rbac.namespaceRestricted }
{{- else }}
- { path: namespaces, value: {{ toJson .Values.operator.namespaces }}, from: operator.namespaces }
{{- end }}
- { path: http.address, value: {{ printf ":%d" (int .Values.operator.metricsPort) | quote }}, from: operator.metricsPort }
- { path: agents.port, value: {{ int .Values.api.tcp.port }}, from: api.tcp.port }
- { path: agents.serverName, value: snapshot-agent, from: "" }
- { path: agents.caFile, value: /etc/snapshot-tls/ca.crt, from: "" }
- { path: agents.certificateFile, value: /etc/snapshot-tls/tls.crt, from: "" }
- { path: agents.keyFile, value: /etc/snapshot-tls/tls.key, from: "" }
- { path: webhook.enabled, value: {{ .Values.operator.webhook.enabled }}, from: operator.webhook.enabled }
- { path: webhook.port, value: {{ int .Values.operator.webhook.port }}, from: operator.webhook.port }
- { path: webhook.configurationName, value: {{ include "snapshot.operatorOfCluster" . | quote }}, from: "" }
- { path: webhook.serviceName, value: {{ printf "%s-webhook" (include "snapshot.operator" .) | quote }}, from: "" }
- { path: webhook.secretName, value: {{ printf "%s-webhook" (include "snapshot.operator" .) | quote }}, from: "" }
- { path: leaderElection.leaseName, value: {{ include "snapshot.operator" . | quote }}, from: "" }
{{- /* Who puts profiles onto the nodes otherwise says so. */}}
{{- if not (hasKey (dig "checkpoint" "seccomp" dict .Values.operator.config) "disabled") }}
- { path: checkpoint.seccomp.disabled, value: {{ not .Values.seccomp.deploy }}, from: seccomp.deploy }
{{- end }}
{{- with .Values.storage }}
{{- $isOfPods := eq .accessMode "podMount" }}
- { path: checkpoint.storage.pvc.pvcName, value: {{ ternary .pvc.name "" $isOfPods | quote }}, from: storage.accessMode }
- { path: checkpoint.storage.pvc.basePath, value: {{ ternary .pvc.basePath "" $isOfPods | quote }}, from: storage.accessMode }
- { path: checkpoint.storage.pvc.create, value: {{ and $isOfPods .pvc.create }}, from: storage.pvc.create }
{{- if and $isOfPods .pvc.create }}
- { path: checkpoint.storage.pvc.size, value: {{ quote .pvc.size }}, from: storage.pvc.size }
- { path: checkpoint.storage.pvc.storageClassName, value: {{ quote .pvc.storageClass }}, from: storage.pvc.storageClass }
- { path: checkpoint.storage.pvc.accessMode, value: {{ quote .pvc.accessMode }}, from: storage.pvc.accessMode }
{{- end }}
{{- end }}
{{- end -}}

{{- define "snapshot.operatorConfig" -}}
{{- include "snapshot.withDerived" (dict "config" .Values.operator.config "rows" (include "snapshot.operatorDerived" . | fromYamlArray) "name" "operator.config" "pod" "the operator's pod") -}}
{{- end -}}

{{/* Replicas on different nodes where that is possible, unless the values say otherwise. */}}
{{- define "snapshot.operatorPlacement" -}}
{{- with .Values.operator.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.operator.priorityClassName }}
priorityClassName: {{ quote . }}
{{- end }}
# The image is for these alone.
nodeSelector:
  {{- mergeOverwrite (dict "kubernetes.io/os" "linux" "kubernetes.io/arch" "amd64") .Values.operator.nodeSelector | toYaml | nindent 2 }}
affinity:
  {{- if .Values.operator.affinity }}
  {{- toYaml .Values.operator.affinity | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "snapshot.operatorSelector" . | nindent 14 }}
  {{- end }}
{{- with .Values.operator.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "snapshot.operatorMakesClaims" -}}
{{- if and (eq .Values.storage.accessMode "podMount") .Values.storage.pvc.create }}true{{ end -}}
{{- end -}}

{{- define "snapshot.operatorRollsOut" -}}
{{- if ne (dig "graph" "rollout" "auto" .Values.operator.config) "off" }}true{{ end -}}
{{- end -}}
