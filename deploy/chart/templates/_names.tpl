{{/* Names, labels, images: what more than one template needs. */}}

{{- define "snapshot.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "snapshot.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "snapshot.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "snapshot.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "snapshot.agent" -}}
{{- printf "%s-agent" (include "snapshot.fullname" .) -}}
{{- end -}}

{{- define "snapshot.credentials" -}}
{{- printf "%s-credentials" (include "snapshot.fullname" .) -}}
{{- end -}}

{{/* Objects of the cluster carry the namespace in their name, so that releases in several namespaces do not meet in one. */}}
{{- define "snapshot.resourceSlices" -}}
{{- printf "%s-%s-resourceslices" .Release.Namespace (include "snapshot.agent" .) -}}
{{- end -}}

{{/* What a DaemonSet finds its pods by. It can never change. */}}
{{- define "snapshot.selector" -}}
app.kubernetes.io/name: {{ include "snapshot.name" . | quote }}
app.kubernetes.io/instance: {{ quote .Release.Name }}
{{- end -}}

{{- define "snapshot.agentSelector" -}}
{{ include "snapshot.selector" . }}
app.kubernetes.io/component: snapshot-agent
{{- end -}}

{{- define "snapshot.credentialsSelector" -}}
{{ include "snapshot.selector" . }}
app.kubernetes.io/component: snapshot-credentials
{{- end -}}

{{- define "snapshot.labels" -}}
{{- $own := include "snapshot.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63) -}}
{{- mergeOverwrite dict .Values.commonLabels $own | toYaml -}}
{{- end -}}

{{- define "snapshot.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "snapshot.fullname" .) -}}
{{- end -}}

{{- define "snapshot.image" -}}
{{- with .Values.daemonset.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "snapshot.runtimeSocket" -}}
{{- $usual := dict "containerd" "/run/containerd/containerd.sock" "crio" "/var/run/crio/crio.sock" -}}
{{- .Values.runtime.socketPath | default (get $usual .Values.runtime.type) -}}
{{- end -}}

{{- define "snapshot.runtimeStorage" -}}
{{- $usual := dict "containerd" "/var/lib/containerd" "crio" "/var/lib/containers" -}}
{{- .Values.runtime.storagePath | default (get $usual .Values.runtime.type) -}}
{{- end -}}

{{/*
One agent works in a state directory, others wait. Agents that serve one namespace each may share a node, so each has its own: beside
the directory of an agent that serves all, not in it, since that one takes no directory with something else in it.
*/}}
{{- define "snapshot.ownDirectory" -}}
{{- if .root.Values.rbac.namespaceRestricted -}}
{{- printf "%s-%s" .path .root.Release.Namespace -}}
{{- else -}}
{{- .path -}}
{{- end -}}
{{- end -}}

{{- define "snapshot.statePath" -}}
{{- .Values.daemonset.statePath | default (include "snapshot.ownDirectory" (dict "root" . "path" "/var/lib/snapshot-agent")) -}}
{{- end -}}

{{- define "snapshot.apiPath" -}}
{{- .Values.daemonset.apiPath | default (include "snapshot.ownDirectory" (dict "root" . "path" "/run/snapshot-agent-api")) -}}
{{- end -}}

{{/* The operator calls the agents over TCP. */}}
{{- define "snapshot.tcp" -}}
{{- if or .Values.api.tcp.enabled .Values.operator.enabled }}true{{ end -}}
{{- end -}}

{{- define "snapshot.recordKeySecret" -}}
{{- .Values.credentials.recordKeySecret | default (printf "%s-record-key" (include "snapshot.fullname" .)) -}}
{{- end -}}

{{- define "snapshot.caSecret" -}}
{{- .Values.credentials.caSecret | default (printf "%s-ca" (include "snapshot.fullname" .)) -}}
{{- end -}}

{{- define "snapshot.agentTlsSecret" -}}
{{- .Values.credentials.agentTlsSecret | default (printf "%s-agent-tls" (include "snapshot.fullname" .)) -}}
{{- end -}}

{{- define "snapshot.operatorTlsSecret" -}}
{{- .Values.credentials.operatorTlsSecret | default (printf "%s-operator-tls" (include "snapshot.fullname" .)) -}}
{{- end -}}

{{- define "snapshot.operator" -}}
{{- printf "%s-operator" (include "snapshot.fullname" .) -}}
{{- end -}}

{{/* Of its objects that belong to no namespace. */}}
{{- define "snapshot.operatorOfCluster" -}}
{{- printf "%s-%s" .Release.Namespace (include "snapshot.operator" .) -}}
{{- end -}}

{{- define "snapshot.operatorSelector" -}}
{{ include "snapshot.selector" . }}
app.kubernetes.io/component: snapshot-operator
{{- end -}}

{{- define "snapshot.operatorAccount" -}}
{{- .Values.operator.serviceAccount.name | default (include "snapshot.operator" .) -}}
{{- end -}}

{{- define "snapshot.operatorImage" -}}
{{- with .Values.operator.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "snapshot.operatorMetadata" -}}
name: {{ include "snapshot.operator" . }}
namespace: {{ quote .Release.Namespace }}
labels:
  {{- mergeOverwrite dict (include "snapshot.labels" . | fromYaml) (include "snapshot.operatorSelector" . | fromYaml) | toYaml | nindent 2 }}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
