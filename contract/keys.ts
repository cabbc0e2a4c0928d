/**
 * Labels, annotations, files and environment names that pods, operator and agent agree on. Values are the protocol's own
 * (generation "seed"); what this system adds is marked and described in docs/protocol.md.
 */
export const LABELS = {
  checkpointSource: 'nvidia.com/snapshot-is-checkpoint-source',
  restoreTarget: 'nvidia.com/snapshot-is-restore-target',
  checkpointId: 'nvidia.com/snapshot-checkpoint-id',
  jobName: 'batch.kubernetes.io/job-name',
} as const;

export const ANNOTATIONS = {
  targetContainers: 'nvidia.com/snapshot-target-containers',
  artifactVersion: 'nvidia.com/snapshot-artifact-version',
  storageType: 'nvidia.com/snapshot-storage-type',
  storageBasePath: 'nvidia.com/snapshot-storage-base-path',
  /** Ours: `resume` (default) or `stop`, what becomes of a bare pod's container after its checkpoint. */
  afterCheckpoint: 'nvidia.com/snapshot-after-checkpoint',
  /** Ours: `adopt` (default) or `replace`, what an artifact of the same id and version that is already there means. */
  existingArtifact: 'nvidia.com/snapshot-existing-artifact',
} as const;

/** Labels that kubelet puts on every sandbox and container it asks the runtime for. */
export const KUBELET_LABELS = {
  podName: 'io.kubernetes.pod.name',
  podNamespace: 'io.kubernetes.pod.namespace',
  podUid: 'io.kubernetes.pod.uid',
  containerName: 'io.kubernetes.container.name',
} as const;

/** Files in a target container's control directory. */
export const SENTINELS = {
  ready: 'ready-for-snapshot',
  complete: 'snapshot-complete',
  restored: 'restore-complete',
  /** Written by the placeholder before it waits: who the new pod is, for the restored worker. */
  context: 'restore-context.json',
} as const;

export const CONTROL_DIR_ENV = 'DYN_SNAPSHOT_CONTROL_DIR';
/** Set to 1, it makes a placeholder write `restore-context.json` and wait. */
export const STANDBY_ENV = 'DYN_SNAPSHOT_RESTORE_STANDBY';
export const DEFAULT_CONTROL_DIR = '/snapshot-control';
export const DEFAULT_ARTIFACT_VERSION = '1';
