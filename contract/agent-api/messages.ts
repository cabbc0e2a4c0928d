/*
 * Messages of proto/agent.proto as proto-loader decodes them (protocol.ts says how): every field is there, messages that are not set are
 * null, enums are names; where a newer agent answers, an enum may be a number. What the fields mean stands in proto/agent.proto.
 */

export interface Timestamp {
  readonly seconds: number;
  readonly nanos: number;
}

/** google.rpc.Status; `errorOfStatus` takes it apart. */
export interface StatusMessage {
  readonly code: number;
  readonly message: string;
  readonly details: readonly { readonly type_url: string; readonly value: Buffer }[];
}

/** Fields that are left out are empty. */
export interface ContainerReference {
  readonly namespace?: string;
  readonly pod?: string;
  readonly container?: string;
  readonly container_id?: string;
}

export interface StorageReference {
  readonly through?: ContainerReference;
  readonly base_path?: string;
}

export interface StartRequest {
  readonly request_id: string;
  readonly target: ContainerReference;
  readonly checkpoint_id: string;
  readonly version?: string;
  readonly base_path?: string;
  readonly wait_seconds?: number;
  readonly trace_id?: string;
}

export interface CheckpointRequest extends StartRequest {
  readonly after?: 'AFTER_CHECKPOINT_UNSPECIFIED' | 'AFTER_CHECKPOINT_RESUME' | 'AFTER_CHECKPOINT_STOP';
  readonly existing?: 'EXISTING_ARTIFACT_UNSPECIFIED' | 'EXISTING_ARTIFACT_ADOPT' | 'EXISTING_ARTIFACT_REPLACE';
}

/** Which artifact, and how its volume is reached where the agent does not mount it. */
export interface ArtifactRequest {
  readonly checkpoint_id: string;
  readonly version?: string;
  readonly storage?: StorageReference | undefined;
}

export interface DeleteRequest extends ArtifactRequest {
  readonly wait_seconds: number;
  /** The one that must have made it; left out: any that the caller may use. */
  readonly namespace?: string;
}

export interface StepTiming {
  readonly step: string;
  readonly seconds: number;
}

interface OperationTarget {
  readonly namespace: string;
  readonly pod: string;
  readonly pod_uid: string;
  readonly container: string;
  readonly container_id: string;
}

interface OperationMetadata {
  readonly revision: number;
  readonly kind: string;
  readonly state: string;
  readonly origin: string;
  readonly request_id: string;
  readonly trace_id: string;
  readonly target: OperationTarget | null;
  readonly checkpoint_id: string;
  readonly version: string;
  readonly waiting_for: string;
  readonly step: string;
  readonly progress: {
    readonly bytes: number;
    readonly total_bytes: number;
    readonly bytes_per_second: number;
  } | null;
  readonly cancel_effect: string;
  readonly create_time: Timestamp | null;
  readonly start_time: Timestamp | null;
  readonly end_time: Timestamp | null;
  readonly timings: readonly StepTiming[];
  readonly figures: Readonly<Record<string, number>>;
}

export interface OperationMessage {
  readonly name: string;
  readonly metadata: OperationMetadata;
  readonly done: boolean;
  readonly error?: StatusMessage | null;
  readonly response?: { readonly checkpoint_id: string; readonly version: string; readonly adopted: boolean } | null;
}

export interface OperationFilter {
  readonly states?: readonly string[];
  readonly kinds?: readonly string[];
  readonly namespace?: string;
}

export interface CompatibilityRequest {
  /** Left out: the node alone is compared. */
  readonly target?: ContainerReference | undefined;
  readonly storage?: StorageReference | undefined;
  readonly restore?: { readonly checkpoint_id: string; readonly version?: string };
  readonly checkpoint?: Readonly<Record<string, never>>;
}

interface MismatchMessage {
  readonly code: string;
  readonly message: string;
  readonly found: string;
  readonly wanted: string;
  readonly advice: string;
}

export interface CompatibilityMessage {
  readonly compatible: boolean;
  readonly mismatches: readonly MismatchMessage[];
  readonly not_checked: readonly string[];
}

export interface CheckpointMessage {
  readonly checkpoint_id: string;
  readonly version: string;
  readonly location: string;
  readonly complete: boolean;
  readonly problem: StatusMessage | null;
  readonly readers: readonly string[];
  readonly record: CheckpointRecord | null;
}

export interface CheckpointRecord {
  readonly create_time: Timestamp | null;
  readonly operation_id: string;
  readonly trace_id: string;
  readonly agent_version: string;
  readonly source: CheckpointSource | null;
  readonly platform: CheckpointPlatform | null;
  readonly sizes: CheckpointSizes | null;
  readonly processes: number;
  readonly threads: number;
  readonly pause_seconds: number;
  readonly timings: readonly StepTiming[];
  readonly min_reader: number;
  readonly memory_limit_bytes: number;
  readonly resident_bytes: number;
  readonly mounts: readonly { readonly mount_point: string; readonly filesystem: string }[];
  readonly mounts_left_out: number;
  readonly terminal: boolean;
  readonly pod_ips: readonly string[];
  readonly private_ipc: boolean;
  readonly control_dir: string;
}

interface CheckpointSource {
  readonly node: string;
  readonly namespace: string;
  readonly pod: string;
  readonly pod_uid: string;
  readonly container: string;
  readonly container_id: string;
  readonly image: string;
  readonly image_id: string;
}

interface CheckpointPlatform {
  readonly arch: string;
  readonly kernel: string;
  readonly criu: string;
  readonly cpu_vendor: string;
  readonly gpu_driver: string;
  readonly gpu_models: readonly string[];
  readonly gpu_proven: boolean;
  readonly cpu_family: number;
  readonly cpu_model: number;
  readonly cpu_features: readonly string[];
  readonly cgroup_version: number;
  readonly gpus: readonly {
    readonly uuid: string;
    readonly model: string;
    readonly memory_bytes: number;
    readonly used_bytes: number;
  }[];
  readonly cuda_version: number;
  readonly cuda_libraries: readonly string[];
}

interface CheckpointSizes {
  readonly criu_bytes: number;
  readonly bulk_bytes: number;
  readonly zero_bytes: number;
  readonly rootfs_bytes: number;
  readonly shm_bytes: number;
  readonly device_bytes: number;
  readonly total_bytes: number;
  readonly files: number;
}

export interface CheckpointContents {
  readonly checkpoint: CheckpointMessage | null;
  readonly processes: readonly CapturedProcess[];
  readonly files: readonly ArtifactFile[];
  readonly processes_left_out: number;
  readonly files_left_out: number;
  readonly file_bytes_left_out: number;
  readonly removed_paths: number;
}

export interface CapturedProcess {
  readonly pid: number;
  readonly parent_pid: number;
  readonly name: string;
  readonly threads: number;
  readonly cuda: boolean;
  readonly memory_bytes: number;
  readonly stored_bytes: number;
  readonly areas: readonly MemoryArea[];
  readonly areas_left_out: number;
  readonly bytes_left_out: number;
  readonly device_bytes: number;
  readonly state: string;
}

export interface MemoryArea {
  readonly start: number;
  readonly end: number;
  readonly kind: string;
  readonly path: string;
  readonly protection: string;
  readonly stored_bytes: number;
  readonly bulk_bytes: number;
  readonly shared: boolean;
}

interface ArtifactFile {
  readonly path: string;
  readonly bytes: number;
  readonly digest: string;
}

export interface VerificationMessage {
  readonly files: number;
  readonly bytes: number;
  readonly seconds: number;
}

export interface NodeMessage {
  readonly node: string;
  readonly agent_version: string;
  readonly boot_id: string;
  readonly arch: string;
  readonly kernel: string;
  readonly criu: string;
  readonly runtime: string;
  readonly access_mode: string;
  readonly base_path: string;
  readonly capabilities: readonly { readonly name: string; readonly available: boolean; readonly detail: string }[];
}
