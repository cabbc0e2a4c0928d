/**
 * Labels, annotations, files and environment names that pods, operator and agent agree on. Values are the protocol's own
 * (generation "seed"); what this system adds is marked and described in docs/protocol.md.
 */
export const LABELS = {
  checkpointSource: 'nvidia.com/snapshot-is-checkpoint-source',
  restoreTarget: 'nvidia.com/snapshot-is-restore-target',
  checkpointId: 'nvidia.com/snapshot-checkpoint-id',
  jobName: 'batch.kubernetes.io/job-name',
  /** On worker pods: which generation of its deployment they are. */
  workerHash: 'nvidia.com/dynamo-worker-hash',
  /** On what is made for a DynamoGraphDeployment, the next three too: its name, the service, the type of that, and their namespace of Dynamo. */
  graph: 'nvidia.com/dynamo-graph-deployment-name',
  component: 'nvidia.com/dynamo-component',
  componentType: 'nvidia.com/dynamo-component-type',
  dynamoNamespace: 'nvidia.com/dynamo-namespace',
  managedBy: 'app.kubernetes.io/managed-by',
} as const;

export const ANNOTATIONS = {
  targetContainers: 'nvidia.com/snapshot-target-containers',
  artifactVersion: 'nvidia.com/snapshot-artifact-version',
  storageType: 'nvidia.com/snapshot-storage-type',
  storageBasePath: 'nvidia.com/snapshot-storage-base-path',
  /** On the Job of a checkpoint: `completed` or `failed`, written by the agent. */
  checkpointStatus: 'nvidia.com/snapshot-checkpoint-status',
  /** Ours, on Jobs, Events and pods: the trace of the operation, 32 hex digits. On a Job or pod that has one it is taken over. */
  traceId: 'nvidia.com/snapshot-trace-id',
  /** Ours: `resume` (default) or `stop`, what becomes of a bare pod's container after its checkpoint. */
  afterCheckpoint: 'nvidia.com/snapshot-after-checkpoint',
  /** Ours: `adopt` (default) or `replace`, what an artifact of the same id and version that is already there means. */
  existingArtifact: 'nvidia.com/snapshot-existing-artifact',
  /** On a DynamoCheckpoint: `true` where it was made for a worker generation. */
  autoCheckpoint: 'nvidia.com/dynamo-auto-checkpoint',
  /** On a DynamoCheckpoint: `Delete` or `Retain`, what becomes of its artifacts when it is deleted. */
  deletionPolicy: 'nvidia.com/dynamo-checkpoint-deletion-policy',
  /** Ours, on a DynamoCheckpoint that failed: any value but a blank one makes it try once more. The operator takes it away. */
  retry: 'nvidia.com/dynamo-checkpoint-retry',
  /** Ours, on a DynamoCheckpoint: `true` starts its worker by `cuda-checkpoint --launch-job`. */
  wrapLaunchJob: 'nvidia.com/snapshot-cuda-checkpoint-wrap',
  /** Ours, on a DynamoCheckpoint whose artifacts go with it: the versions that it had, separated by commas. */
  artifactVersions: 'nvidia.com/snapshot-artifact-versions',
  /** Ours, on a cleanup Job: the uid of the DynamoCheckpoint that it works for. */
  cleanupFor: 'nvidia.com/snapshot-cleanup-for',
  /** On the pod template of a worker, the next two too: its new pods are restored once the checkpoint is ready. */
  restoreCandidate: 'nvidia.com/dynamo-checkpoint-restore-candidate',
  checkpointName: 'nvidia.com/dynamo-checkpoint-name',
  startupPolicy: 'nvidia.com/dynamo-checkpoint-startup-policy',
  /** Ours, on a service of a DynamoGraphDeployment or on all of it: `Wait` or `ColdStart`, what its workers do where the checkpoint they wait for failed. */
  failedFallback: 'nvidia.com/dynamo-checkpoint-failed-fallback',
  /** Ours, on a Deployment of the plain rollout: digest of what its template was made of, and how its worker generation was started. */
  rolloutApplied: 'nvidia.com/snapshot-rollout-applied',
  rolloutStarted: 'nvidia.com/snapshot-rollout-started',
} as const;

/** Annotations of restore targets, one of each for every target container: the container's name follows the dot. */
export const SCOPED_ANNOTATIONS = {
  restoreStatus: 'nvidia.com/snapshot-restore-status.',
  restoreContainerId: 'nvidia.com/snapshot-restore-container-id.',
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

/** Says why a key cannot be that of an annotation (a qualified name, its part after the slash at most 63 characters), or undefined. */
export function annotationKeyProblem(key: string): string | undefined {
  const name = key.slice(key.indexOf('/') + 1);
  if (name.length > 63) return `is no legal key: ${name.length} characters after the slash, at most 63 are allowed`;
  if (!/^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$/.test(name)) return 'is no legal key';
  return undefined;
}
