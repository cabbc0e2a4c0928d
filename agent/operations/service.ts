import type { ContentArea, ContentProcess } from '../criu/images/contents.ts';
import type { Reason, SnapshotError } from '../errors.ts';
import type { ArtifactRecord } from '../store/record.ts';
import type { OperationView } from './operation.ts';

/** Names a container of this node: by its runtime id, or by pod and container name. Empty strings are unset. */
export interface ContainerReference {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly containerId: string;
}

/** Who asks: which namespaces are open to them, and their name for the log. */
export interface Caller {
  readonly name: string;
  /** `all`, or the namespaces whose pods and artifacts they may use. */
  readonly namespaces: 'all' | ReadonlySet<string>;
}

/** Whether what belongs to `namespace` may be shown to the caller. */
export function maySee({ namespaces }: Caller, namespace: string): boolean {
  return namespaces === 'all' || namespaces.has(namespace);
}

export interface StartRequest {
  /** 1 to 63 of `[A-Za-z0-9_.-]`; the same id and content again gives the recorded operation. */
  readonly requestId: string;
  readonly target: ContainerReference;
  readonly checkpointId: string;
  readonly version: string;
  /** Base path of the volume where it is not the agent's own (podMount). Empty: the configured one. */
  readonly basePath: string;
  /** How long it may wait until the source is quiet, the artifact is there, or the placeholder stands by. */
  readonly waitSeconds: number;
  readonly traceId: string;
}

export interface StartCheckpoint extends StartRequest {
  /** Undefined: the configuration decides. */
  readonly after: 'resume' | 'stop' | undefined;
  readonly existing: 'adopt' | 'replace';
}

/** Whose mounts lead to the volume: needed in podMount mode, ignored in agentMount mode. */
export interface StorageReference {
  readonly through: ContainerReference;
  readonly basePath: string;
}

/** An artifact, or what is wrong with what lies in its place. */
export interface ArtifactView {
  readonly id: string;
  readonly version: string;
  /** As users know it: `<basePath>/<id>/versions/<version>`. */
  readonly location: string;
  readonly record: ArtifactRecord | undefined;
  readonly problem: SnapshotError | undefined;
  /** Operations that are reading it, on any node. */
  readonly readers: readonly string[];
}

/** A process of an artifact. Sizes in bytes. */
export interface CapturedProcess extends ContentProcess {
  readonly cuda: boolean;
  readonly deviceBytes: number;
  /** All addresses that are mapped. */
  readonly memoryBytes: number;
  readonly storedBytes: number;
  /** By address; not all where there are too many. */
  readonly areas: readonly ContentArea[];
  readonly areasLeftOut: number;
  /** Mapped bytes of the areas that are left out. */
  readonly bytesLeftOut: number;
}

/** What is inside an artifact, as much of it as an answer holds. */
export interface ArtifactContents {
  readonly artifact: ArtifactView;
  readonly processes: readonly CapturedProcess[];
  readonly processesLeftOut: number;
  readonly files: readonly { readonly path: string; readonly size: number; readonly sha256: string }[];
  readonly filesLeftOut: number;
  readonly fileBytesLeftOut: number;
  /** Paths of the root filesystem that a restore removes. */
  readonly removedPaths: number;
}

export interface Capability {
  readonly name: string;
  readonly available: boolean;
  /** Its version or kind, or why it is missing. */
  readonly detail: string;
}

export interface NodeInfo {
  readonly node: string;
  readonly agentVersion: string;
  readonly bootId: string;
  readonly arch: string;
  readonly kernel: string;
  readonly criu: string;
  readonly runtime: string;
  readonly accessMode: 'agentMount' | 'podMount';
  readonly basePath: string;
  readonly capabilities: readonly Capability[];
}

/** What can be asked of this node's agent. Every call throws SnapshotError. */
export interface AgentService {
  /** Accepts a checkpoint. REQUEST_CONFLICT, TARGET_BUSY, CONTAINER_NOT_FOUND, ID_INVALID, FORBIDDEN. */
  checkpoint(request: StartCheckpoint, caller: Caller): Promise<OperationView>;
  restore(request: StartRequest, caller: Caller): Promise<OperationView>;
  /** Everything that a checkpoint of this container would be refused for; empty where nothing is seen. Nothing is changed. */
  checkCheckpoint(
    request: { readonly target: ContainerReference; readonly storage: StorageReference },
    caller: Caller,
    signal: AbortSignal,
  ): Promise<readonly Reason[]>;
  /** Everything that a restore of this artifact into this container would be refused for. */
  checkRestore(
    request: {
      readonly target: ContainerReference;
      readonly storage: StorageReference;
      readonly id: string;
      readonly version: string;
    },
    caller: Caller,
    signal: AbortSignal,
  ): Promise<readonly Reason[]>;
  /** Everything of this node that a restore of this artifact would be refused for, and in words what only a container can show. */
  checkArtifact(
    request: { readonly storage: StorageReference; readonly id: string; readonly version: string },
    caller: Caller,
    signal: AbortSignal,
  ): Promise<{ readonly reasons: readonly Reason[]; readonly notChecked: readonly string[] }>;
  listArtifacts(
    request: { readonly storage: StorageReference; readonly limit: number; readonly after: string },
    caller: Caller,
  ): Promise<{ readonly artifacts: readonly ArtifactView[]; readonly next: string }>;
  getArtifact(
    request: { readonly storage: StorageReference; readonly id: string; readonly version: string },
    caller: Caller,
  ): Promise<ArtifactView>;
  /** Reads what its images say, not the memory itself. Throws what is wrong with them. */
  inspectArtifact(
    request: { readonly storage: StorageReference; readonly id: string; readonly version: string },
    caller: Caller,
    signal: AbortSignal,
  ): Promise<ArtifactContents>;
  /** Reads all of it and compares every digest. Throws what is wrong with it. */
  verifyArtifact(
    request: { readonly storage: StorageReference; readonly id: string; readonly version: string },
    caller: Caller,
    signal: AbortSignal,
  ): Promise<{ readonly files: number; readonly bytes: number; readonly seconds: number }>;
  deleteArtifact(
    request: {
      readonly storage: StorageReference;
      readonly id: string;
      readonly version: string;
      readonly waitSeconds: number;
    },
    caller: Caller,
    signal: AbortSignal,
  ): Promise<void>;
  nodeInfo(): NodeInfo;
}
