{{/* Parts of the agent's pod: where it runs, its environment, its volumes. docs/image.md says why each of them is there. */}}

{{- define "snapshot.podAnnotations" -}}
{{- $own := dict "checksum/config" (include "snapshot.configForRestart" . | sha256sum) -}}
{{- if .Values.seccomp.deploy -}}
{{- $_ := set $own "checksum/seccomp" (.Files.Get "files/block-iouring.json" | sha256sum) -}}
{{- end -}}
{{- if .Values.openshift.enabled -}}
{{- $_ := set $own "openshift.io/required-scc" "privileged" -}}
{{- end -}}
{{- mergeOverwrite dict .Values.commonAnnotations .Values.daemonset.podAnnotations $own | toYaml -}}
{{- end -}}

{{- define "snapshot.podPlacement" -}}
{{- with .Values.daemonset.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.daemonset.priorityClassName }}
priorityClassName: {{ quote . }}
{{- end }}
{{- if and .Values.gpu.enabled .Values.gpu.runtimeClassName }}
# It puts the driver's libraries and device nodes into the container.
runtimeClassName: {{ quote .Values.gpu.runtimeClassName }}
{{- end }}
{{- with ternary .Values.daemonset.nodeSelector (omit .Values.daemonset.nodeSelector "nvidia.com/gpu.present") .Values.gpu.enabled }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  {{- with .Values.daemonset.affinity }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - { key: kubernetes.io/os, operator: In, values: [linux] }
            - { key: kubernetes.io/arch, operator: In, values: [amd64] }
{{- $all := ternary (list (dict "operator" "Exists")) list .Values.daemonset.tolerateEverything }}
{{- with concat .Values.daemonset.tolerations $all }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "snapshot.env" -}}
- name: NODE_NAME
  valueFrom: { fieldRef: { fieldPath: spec.nodeName } }
{{- if .Values.rbac.namespaceRestricted }}
- name: RESTRICTED_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
{{- end }}
{{- if .Values.gpu.enabled }}
# Read by the NVIDIA container runtime: all GPUs of the node, for calls of the driver and for telling them apart.
- { name: NVIDIA_VISIBLE_DEVICES, value: all }
- { name: NVIDIA_DRIVER_CAPABILITIES, value: "compute,utility" }
{{- end }}
{{- with .Values.daemonset.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "snapshot.mounts" -}}
# Directories, not files: the links that kubelet replaces at a change work only so.
- { name: config, mountPath: /etc/snapshot, readOnly: true }
- { name: record-key, mountPath: /etc/snapshot-key, readOnly: true }
{{- if include "snapshot.tcp" . }}
- { name: tls, mountPath: /etc/snapshot-tls, readOnly: true }
{{- end }}
{{- if eq .Values.storage.accessMode "agentMount" }}
- { name: checkpoints, mountPath: {{ .Values.storage.pvc.basePath | quote }} }
{{- end }}
- { name: state, mountPath: /var/lib/snapshot-agent }
- { name: run, mountPath: /run }
# The socket of its gRPC service, for root on the node.
- { name: api, mountPath: /run/snapshot-agent-api }
- { name: tmp, mountPath: /tmp }
- { name: host-proc, mountPath: /host/proc }
- { name: host-cgroup, mountPath: /host/cgroup }
# HostToContainer: mounts of containers that end go away here too. A private copy would hold on to them.
- { name: runtime-run, mountPath: {{ include "snapshot.runtimeSocket" . | dir | quote }}, readOnly: true, mountPropagation: HostToContainer }
- { name: runtime-storage, mountPath: {{ include "snapshot.runtimeStorage" . | quote }}, readOnly: true, mountPropagation: HostToContainer }
{{- if .Values.gpu.enabled }}
# kubelet's socket: which GPUs a container was given.
- { name: pod-resources, mountPath: {{ printf "%s/pod-resources" .Values.kubelet.rootDir | quote }}, readOnly: true }
{{- end }}
{{- with .Values.daemonset.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "snapshot.volumes" -}}
- name: config
  configMap: { name: {{ include "snapshot.fullname" . }}-config }
- name: record-key
  secret: { secretName: {{ include "snapshot.recordKeySecret" . | quote }}, defaultMode: 0400 }
{{- if include "snapshot.tcp" . }}
- name: tls
  secret: { secretName: {{ include "snapshot.agentTlsSecret" . | quote }}, defaultMode: 0400 }
{{- end }}
{{- if eq .Values.storage.accessMode "agentMount" }}
- name: checkpoints
  persistentVolumeClaim: { claimName: {{ quote .Values.storage.pvc.name }} }
{{- end }}
- name: state
  hostPath: { path: {{ include "snapshot.statePath" . | quote }}, type: DirectoryOrCreate }
- name: api
  hostPath: { path: {{ include "snapshot.apiPath" . | quote }}, type: DirectoryOrCreate }
# Memory: CRIU keeps notes and makes mount points there, and the root filesystem is read-only.
- name: run
  emptyDir: { medium: Memory, sizeLimit: 64Mi }
- name: tmp
  emptyDir: { medium: Memory, sizeLimit: 64Mi }
- name: host-proc
  hostPath: { path: /proc, type: Directory }
- name: host-cgroup
  hostPath: { path: /sys/fs/cgroup, type: Directory }
- name: runtime-run
  hostPath: { path: {{ include "snapshot.runtimeSocket" . | dir | quote }}, type: Directory }
- name: runtime-storage
  hostPath: { path: {{ include "snapshot.runtimeStorage" . | quote }}, type: Directory }
{{- if .Values.gpu.enabled }}
- name: pod-resources
  hostPath: { path: {{ printf "%s/pod-resources" .Values.kubelet.rootDir | quote }}, type: Directory }
{{- end }}
{{- if .Values.seccomp.deploy }}
- name: seccomp-profiles
  configMap: { name: {{ include "snapshot.fullname" . }}-seccomp }
- name: host-seccomp
  hostPath: { path: {{ printf "%s/seccomp" .Values.kubelet.rootDir | quote }}, type: DirectoryOrCreate }
{{- end }}
{{- with .Values.daemonset.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Puts the profile where kubelet looks for `localhostProfile: profiles/block-iouring.json`. Renamed into place: kubelet may read it at any time. */}}
{{- define "snapshot.seccompContainer" -}}
- name: deploy-seccomp
  image: {{ .Values.daemonset.initContainer.image | default (include "snapshot.image" .) | quote }}
  imagePullPolicy: {{ .Values.daemonset.initContainer.imagePullPolicy }}
  command:
    - /bin/sh
    - -ec
    - |
      mkdir -p /host/seccomp/profiles
      if cmp -s /profiles/block-iouring.json /host/seccomp/profiles/block-iouring.json; then exit 0; fi
      [ ! -e /host/seccomp/profiles/block-iouring.json ] || echo "replacing a profile of other contents: another version, or another release"
      cp /profiles/block-iouring.json /host/seccomp/profiles/.block-iouring.json.new
      chmod 644 /host/seccomp/profiles/.block-iouring.json.new
      mv /host/seccomp/profiles/.block-iouring.json.new /host/seccomp/profiles/block-iouring.json
  securityContext:
    runAsUser: 0
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: { drop: [ALL] }
    {{- if .Values.openshift.enabled }}
    # SELinux lets no ordinary container write into kubelet's directory.
    seLinuxOptions: { type: spc_t }
    {{- end }}
  {{- with .Values.daemonset.initContainer.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - { name: seccomp-profiles, mountPath: /profiles, readOnly: true }
    - { name: host-seccomp, mountPath: /host/seccomp }
{{- end -}}
