{{/*
What makes and rotates the credentials: the account, its rights and the pod. They come twice: once as hooks, which are there only while an
install or upgrade waits for the first run, and once as ordinary objects for the CronJob. Hooks are not removed with a release, so that
what stays cannot be one.
*/}}

{{/* Everything that the credentials' pod runs as. Takes: root, name, annotations. */}}
{{- define "snapshot.credentialsAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "snapshot.credentialsMetadata" . | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "snapshot.credentialsMetadata" . | nindent 2 }}
rules:
  # RBAC cannot tell the name of what is created. All else is allowed by name only.
  - apiGroups: [""]
    resources: [secrets]
    verbs: [create]
  - apiGroups: [""]
    resources: [secrets]
    resourceNames:
      - {{ include "snapshot.recordKeySecret" .root | quote }}
      {{- if include "snapshot.tcp" .root }}
      - {{ include "snapshot.caSecret" .root | quote }}
      - {{ include "snapshot.agentTlsSecret" .root | quote }}
      - {{ include "snapshot.operatorTlsSecret" .root | quote }}
      {{- end }}
    verbs: [get, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "snapshot.credentialsMetadata" . | nindent 2 }}
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .name }} }
subjects:
  - { kind: ServiceAccount, name: {{ .name }}, namespace: {{ quote .root.Release.Namespace }} }
{{- end -}}

{{- define "snapshot.credentialsMetadata" -}}
name: {{ .name }}
namespace: {{ quote .root.Release.Namespace }}
labels:
  {{- include "snapshot.labels" .root | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The template of a Job. Takes: root, name (of the account). */}}
{{- define "snapshot.credentialsJob" -}}
{{- $values := .root.Values.credentials -}}
backoffLimit: 4
activeDeadlineSeconds: {{ $values.activeDeadlineSeconds }}
template:
  metadata:
    labels:
      {{- mergeOverwrite dict (include "snapshot.labels" .root | fromYaml) (include "snapshot.credentialsSelector" .root | fromYaml) | toYaml | nindent 6 }}
    annotations:
      # The sidecar of a mesh would never let the Job end.
      sidecar.istio.io/inject: "false"
      linkerd.io/inject: disabled
  spec:
    {{- with .root.Values.daemonset.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    serviceAccountName: {{ .name }}
    restartPolicy: Never
    nodeSelector: {{ mergeOverwrite (dict "kubernetes.io/os" "linux" "kubernetes.io/arch" "amd64") $values.nodeSelector | toJson }}
    {{- with $values.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      runAsNonRoot: true
      {{- if not .root.Values.openshift.enabled }}
      # OpenShift gives each namespace users of its own, and refuses any other.
      runAsUser: 65532
      runAsGroup: 65532
      {{- end }}
      seccompProfile: { type: RuntimeDefault }
    containers:
      - name: credentials
        image: {{ include "snapshot.image" .root | quote }}
        imagePullPolicy: {{ .root.Values.daemonset.image.pullPolicy }}
        command: [snapshotctl]
        args:
          - credentials
          - ensure
          - --namespace={{ .root.Release.Namespace }}
          - --record-key-secret={{ include "snapshot.recordKeySecret" .root }}
          - --record-key-days={{ $values.recordKeyDays }}
          {{- if include "snapshot.tcp" .root }}
          - --tls
          - --ca-secret={{ include "snapshot.caSecret" .root }}
          - --agent-tls-secret={{ include "snapshot.agentTlsSecret" .root }}
          - --operator-tls-secret={{ include "snapshot.operatorTlsSecret" .root }}
          - --certificate-days={{ $values.certificateDays }}
          - --ca-days={{ $values.caDays }}
          {{- end }}
          {{- range $key, $value := mergeOverwrite dict .root.Values.commonLabels (include "snapshot.selector" .root | fromYaml) }}
          - {{ printf "--labels=%s=%s" $key $value | quote }}
          {{- end }}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: { drop: [ALL] }
        {{- with $values.resources }}
        resources:
          {{- toYaml . | nindent 10 }}
        {{- end }}
{{- end -}}
