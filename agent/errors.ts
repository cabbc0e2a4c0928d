/**
 * Every error code of the agent, in one table. A code is stable: it appears in logs, records, gRPC details, metrics and
 * docs/troubleshooting. `grpc` is the status a gRPC caller sees; `retryable` says whether the same request can succeed later on
 * the same node without anyone changing anything; `advice` is what the person on call should do.
 */
export const ERRORS = {
  // Asked for something that cannot be.
  CONFIG_INVALID: { grpc: 'INVALID_ARGUMENT', retryable: false, advice: 'Correct the named configuration key.' },
  ID_INVALID: {
    grpc: 'INVALID_ARGUMENT',
    retryable: false,
    advice: 'Use 1 to 63 of A-Z a-z 0-9 . _ -, not beginning with a dot, not "tmp".',
  },
  POD_INVALID: {
    grpc: 'INVALID_ARGUMENT',
    retryable: false,
    advice: 'Correct the named label or annotation of the pod.',
  },

  REQUEST_INVALID: {
    grpc: 'INVALID_ARGUMENT',
    retryable: false,
    advice: 'Correct the named field of the request.',
  },
  REQUEST_CONFLICT: {
    grpc: 'ALREADY_EXISTS',
    retryable: false,
    advice: 'The request id was used with other contents: take a new one for a new request.',
  },
  FORBIDDEN: {
    grpc: 'PERMISSION_DENIED',
    retryable: false,
    advice: "The caller may not use this namespace: api.clients of the agent's configuration says who may.",
  },
  OPERATION_NOT_FOUND: {
    grpc: 'NOT_FOUND',
    retryable: false,
    advice: 'No operation of this id on this node, or it ended long ago and was forgotten.',
  },
  LIMIT_EXCEEDED: {
    grpc: 'RESOURCE_EXHAUSTED',
    retryable: true,
    advice: 'Too many calls or operations at once: ask again after a while.',
  },
  SHUTTING_DOWN: {
    grpc: 'UNAVAILABLE',
    retryable: true,
    advice: 'The agent is stopping: ask again when it is back.',
  },

  // Refusals: seen before anything was touched. The details list every reason.
  CHECKPOINT_REFUSED: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice: 'Change what the listed reasons name in the workload or the node, then ask again.',
  },
  RESTORE_REFUSED: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice: 'Use a node and a pod that match the artifact, or make a new checkpoint.',
  },
  CAPABILITY_MISSING: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice: 'The node lacks what the message names: mend the node or the agent image.',
  },

  // The target.
  CONTAINER_NOT_FOUND: { grpc: 'NOT_FOUND', retryable: true, advice: 'The container is not running on this node.' },
  CONTAINER_GONE: {
    grpc: 'ABORTED',
    retryable: true,
    advice: 'The container ended or restarted meanwhile; a new container gets a new attempt.',
  },
  TARGET_BUSY: { grpc: 'ABORTED', retryable: true, advice: 'Another operation holds this container: wait for it.' },
  TARGET_QUARANTINED: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice: 'A process of an earlier operation does not die (storage hangs?): delete the pod, look at the node.',
  },
  CONTROL_DIR_UNSAFE: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice: 'The control directory inside the container leads through a symlink: mount it plainly.',
  },

  // Storage.
  STORAGE_NOT_ATTACHED: {
    grpc: 'FAILED_PRECONDITION',
    retryable: true,
    advice: 'The volume is not mounted where the access mode says: look at the pod or the agent.',
  },
  STORAGE_UNSAFE: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice: 'The path to the volume leads through a symlink or is not a volume: somebody planted it, look who.',
  },
  STORAGE_FULL: { grpc: 'RESOURCE_EXHAUSTED', retryable: true, advice: 'Free space on the volume or enlarge it.' },
  STORAGE_FAILED: {
    grpc: 'UNAVAILABLE',
    retryable: true,
    advice: 'The storage answered with an error: look at the volume.',
  },
  ARTIFACT_NOT_FOUND: {
    grpc: 'NOT_FOUND',
    retryable: true,
    advice: 'No complete artifact of this id and version: wait for its checkpoint, or make one.',
  },
  ARTIFACT_EXISTS: {
    grpc: 'ALREADY_EXISTS',
    retryable: false,
    advice: 'An artifact of this id and version is there: use another version, or ask for replacement.',
  },
  ARTIFACT_BUSY: {
    grpc: 'ABORTED',
    retryable: true,
    advice: 'A restore is reading the artifact: wait until it is done, then ask again.',
  },
  ARTIFACT_CORRUPT: { grpc: 'DATA_LOSS', retryable: false, advice: 'Delete the artifact and make a new checkpoint.' },
  ARTIFACT_UNSIGNED: {
    grpc: 'PERMISSION_DENIED',
    retryable: false,
    advice: 'No agent of this cluster signed this record: do not use it, look who wrote it.',
  },
  ARTIFACT_FORMAT: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice: 'The artifact was written by a newer agent: upgrade this one.',
  },
  ARTIFACT_FOREIGN: {
    grpc: 'PERMISSION_DENIED',
    retryable: false,
    advice: 'The artifact belongs to another namespace: make one in this namespace.',
  },
  ARTIFACT_TOO_LARGE: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice:
      'An inspection reads only so much. The artifact may be good: VerifyCheckpoint says so, and a restore takes it.',
  },
  ARTIFACT_UNSAFE: {
    grpc: 'PERMISSION_DENIED',
    retryable: false,
    advice: 'The images ask for more than the target container may have: do not use the artifact, look who wrote it.',
  },

  MEMORY_FRAGMENTED: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice: 'Memory in too many pieces: use transparent huge pages or larger allocations, then checkpoint anew.',
  },

  // Steps.
  QUIESCE_TIMEOUT: {
    grpc: 'DEADLINE_EXCEEDED',
    retryable: true,
    advice: 'The workload did not say that it is ready for a snapshot: look at its log.',
  },
  DUMP_FAILED: { grpc: 'INTERNAL', retryable: false, advice: 'See the diagnosis and the tail of dump.log.' },
  ROOTFS_FAILED: { grpc: 'INTERNAL', retryable: false, advice: 'The root filesystem diff failed: see the message.' },
  RESTORE_FAILED: { grpc: 'INTERNAL', retryable: false, advice: 'See the diagnosis and the tail of restore.log.' },
  FILL_FAILED: { grpc: 'INTERNAL', retryable: false, advice: 'Memory could not be filled: see the message.' },
  CUDA_BUSY: {
    grpc: 'ABORTED',
    retryable: true,
    advice:
      'GPU work did not end in time: let the workload finish it, collectives of all ranks too, before it is ready.',
  },
  CUDA_WORKER_DIED: {
    grpc: 'UNAVAILABLE',
    retryable: true,
    advice:
      'The program that calls the CUDA driver ended in the middle of a call: look why (memory, somebody killed it).',
  },
  CUDA_FAILED: {
    grpc: 'INTERNAL',
    retryable: false,
    advice: 'The CUDA driver did not do what it was asked: see its answer in the message, and docs/gpu.md.',
  },
  CUDA_LOST: {
    grpc: 'INTERNAL',
    retryable: false,
    advice:
      'The driver cannot restore what it checkpointed: the workload is lost. Make it leave out what the driver cannot restore (docs/gpu.md).',
  },
  STEP_TIMEOUT: {
    grpc: 'DEADLINE_EXCEEDED',
    retryable: true,
    advice: 'The named step passed its deadline: look at what it waits for.',
  },
  CANCELLED: { grpc: 'CANCELLED', retryable: true, advice: 'Somebody cancelled the operation, or the agent stopped.' },
  OUTCOME_UNKNOWN: {
    grpc: 'UNKNOWN',
    retryable: false,
    advice: 'The agent died in the middle of a restore; the container was ended and is not used again.',
  },

  // GPUs.
  GPU_IDENTITY: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice:
      'Which GPUs the container has cannot be told, or what it was given is not what it sees: compare the lists, look at its device plugin or DRA driver and at /dev inside.',
  },
  KUBELET_UNAVAILABLE: {
    grpc: 'UNAVAILABLE',
    retryable: true,
    advice: 'The PodResources service of kubelet does not answer: look at kubelet, and at cuda.podResourcesSocket.',
  },

  // Kubernetes.
  LEASE_LOST: {
    grpc: 'ABORTED',
    retryable: true,
    advice: 'Another agent holds the lease of the checkpoint Job: its result counts.',
  },
  JOB_FAILED: {
    grpc: 'ABORTED',
    retryable: false,
    advice: 'The checkpoint Job was declared failed meanwhile: make a new Job.',
  },
  JOB_UNDECLARED: {
    grpc: 'UNAVAILABLE',
    retryable: true,
    advice:
      'The artifact is complete and its worker waits: the agent declares the Job when the Kubernetes API takes it.',
  },
  WORKER_FAILED: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice: 'A container of the checkpoint pod ended with an error: look at its log.',
  },
  POD_GONE: { grpc: 'ABORTED', retryable: false, advice: 'The pod was deleted or replaced meanwhile: nothing to do.' },
  KUBERNETES_UNAVAILABLE: {
    grpc: 'UNAVAILABLE',
    retryable: true,
    advice: 'The Kubernetes API does not answer as it should: look at it, and at the RBAC rules of the agent.',
  },
  KUBERNETES_REFUSED: {
    grpc: 'FAILED_PRECONDITION',
    retryable: false,
    advice:
      'The named object cannot be annotated: remove some of its annotations where they fill 256 KiB, or change the admission policy that refuses; then make a new one.',
  },

  // The node.
  RUNTIME_UNAVAILABLE: {
    grpc: 'UNAVAILABLE',
    retryable: true,
    advice: 'The container runtime does not answer: look at its socket.',
  },
  INTERNAL: { grpc: 'INTERNAL', retryable: false, advice: 'A defect of the agent: report it with the log.' },
} as const satisfies Record<string, ErrorRow>;

interface ErrorRow {
  readonly grpc: string;
  readonly retryable: boolean;
  readonly advice: string;
}

export type ErrorCode = keyof typeof ERRORS;

/**
 * One reason of a refusal: what was found, what is needed, and what to do. `code` is stable (UPPER_SNAKE).
 * `found` and `wanted` are shown side by side; either may be empty where there is no such value.
 */
export interface Reason {
  readonly code: string;
  readonly message: string;
  readonly found: string;
  readonly wanted: string;
  readonly advice: string;
}

/** Every failure that leaves a room of the agent. `message` says what failed, with what; the table says what to do. */
export class SnapshotError extends Error {
  readonly code: ErrorCode;
  readonly reasons: readonly Reason[];

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; reasons?: readonly Reason[] } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = 'SnapshotError';
    this.code = code;
    this.reasons = options.reasons ?? [];
  }

  get retryable(): boolean {
    return ERRORS[this.code].retryable;
  }

  get advice(): string {
    return ERRORS[this.code].advice;
  }
}

/** Any thrown value as a SnapshotError: known ones unchanged, others as INTERNAL with the original as cause. */
export function asSnapshotError(thrown: unknown): SnapshotError {
  if (thrown instanceof SnapshotError) return thrown;
  return new SnapshotError('INTERNAL', thrown instanceof Error ? thrown.message : String(thrown), { cause: thrown });
}
