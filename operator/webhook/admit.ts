import type { PodTemplate } from '../../contract/checkpoint-job.ts';
import { type DynamoCheckpoint, podTemplate } from '../../contract/dynamo-checkpoint.ts';
import type { ObjectRead } from '../../contract/object-meta.ts';
import { type Placeholder, restorePod } from '../../contract/restore-pod.ts';
import { ShapingError } from '../../contract/shaping-error.ts';
import type { StorageSource } from '../../contract/storage-volume.ts';
import type { AdmissionRequest } from './admission-review.ts';
import { candidateFor, generationProblem, readyCheckpoint, stampProblem, targetsOf } from './candidate.ts';
import { jsonPatch, type PatchOperation } from './json-patch.ts';

export interface AdmissionOptions {
  /** `checkpoint.enabled` */
  readonly enabled: boolean;
  /** The namespaces that the operator works in; empty: all. */
  readonly namespaces: readonly string[];
  /** Of the node; undefined leaves what the pod says. */
  readonly seccompProfile: string | undefined;
  /** What a pod runs while it waits. */
  readonly placeholder: Placeholder;
}

/** Where a namespace's artifacts are, or why that is not known. */
export type StorageAnswer = { readonly source: StorageSource } | { readonly problem: string };

/** What is known without asking anybody: the caches. */
export interface Known {
  /** Everything was listed at least once. */
  readonly isSynced: boolean;
  /** By `namespace/name`. */
  checkpoint(key: string): ObjectRead<DynamoCheckpoint> | undefined;
  storage(namespace: string): StorageAnswer;
}

/** Why a pod is let through as it is. */
export const PASS_REASONS = [
  'not-a-pod-creation',
  'disabled',
  'namespace-excluded',
  'dry-run',
  'malformed',
  'not-a-candidate',
  'untrusted',
  'not-synced',
  'checkpoint-missing',
  'checkpoint-malformed',
  'other-generation',
  'checkpoint-not-ready',
  'storage-unknown',
  'conflict',
  'already-shaped',
  'error',
] as const;
export type PassReason = (typeof PASS_REASONS)[number];

interface Shaped {
  readonly result: 'shaped';
  readonly patch: readonly PatchOperation[];
  /** `namespace/name` */
  readonly checkpoint: string;
  readonly checkpointId: string;
}

export interface Passed {
  readonly result: 'passed';
  readonly why: PassReason;
  /** One sentence; empty where the reason says all. */
  readonly detail: string;
  /** The pod stands in its own way: the checkpoint beside which that is said. */
  readonly about?: DynamoCheckpoint;
}

export type Verdict = Shaped | Passed;

/**
 * What becomes of a pod that is about to be created: one that is to be restored and can be is shaped for it; every other one is let
 * through as it is, and starts cold. It never throws, and waits for nothing.
 */
export function admit(request: AdmissionRequest, known: Known, options: AdmissionOptions): Verdict {
  try {
    return outside(request, options) ?? candidate(request, known, options);
  } catch (error) {
    return passed('error', error instanceof Error ? error.message : String(error));
  }
}

const passed = (why: PassReason, detail = ''): Passed => ({ result: 'passed', why, detail });

/** What need not be looked at; undefined where it must be. */
function outside(request: AdmissionRequest, { enabled, namespaces }: AdmissionOptions): Verdict | undefined {
  const { resource, subResource = '', operation, namespace, dryRun } = request;
  const isPod = resource.group === '' && resource.version === 'v1' && resource.resource === 'pods';
  if (!isPod || subResource !== '' || operation !== 'CREATE') return passed('not-a-pod-creation');
  if (!enabled) return passed('disabled');
  if (namespaces.length > 0 && !namespaces.includes(namespace)) return passed('namespace-excluded');
  return dryRun === true ? passed('dry-run') : undefined;
}

function candidate(request: AdmissionRequest, known: Known, options: AdmissionOptions): Verdict {
  const { namespace, object } = request;
  const { success } = podTemplate.safeParse(object);
  if (!success) return passed('malformed', 'the pod has no containers, or labels that are no text');
  // As it was sent: nothing that was read into it may end in the patch.
  const pod = object as PodTemplate;
  const meta = pod.metadata ?? {};
  const name = candidateFor(meta);
  if (name === undefined) return passed('not-a-candidate');
  const problem = stampProblem(meta);
  if (problem !== undefined) return passed('untrusted', problem);
  if (!known.isSynced) return passed('not-synced', 'the DynamoCheckpoints were not read yet');
  const read = known.checkpoint(`${namespace}/${name}`);
  if (read === undefined) return passed('checkpoint-missing', `there is no DynamoCheckpoint ${name}`);
  if (read.result === 'malformed') return passed('checkpoint-malformed', `DynamoCheckpoint ${name}: ${read.problem}`);
  const checkpoint = read.object;
  const otherwise = generationProblem(meta, checkpoint);
  if (otherwise !== undefined) return passed('other-generation', otherwise);
  const ready = readyCheckpoint(checkpoint);
  if (typeof ready === 'string') return passed('checkpoint-not-ready', ready);
  const storage = known.storage(namespace);
  if ('problem' in storage) return passed('storage-unknown', storage.problem);
  return shaped(pod, { checkpoint, ready, storage: storage.source, options });
}

interface Shaping {
  readonly checkpoint: DynamoCheckpoint;
  readonly ready: { readonly checkpointId: string; readonly version: string };
  readonly storage: StorageSource;
  readonly options: AdmissionOptions;
}

function shaped(pod: PodTemplate, { checkpoint, ready, storage, options }: Shaping): Verdict {
  const { seccompProfile, placeholder } = options;
  const targets = targetsOf(pod.metadata ?? {}, checkpoint);
  if (typeof targets === 'string') return { ...passed('conflict', targets), about: checkpoint };
  try {
    const patch = jsonPatch(pod, restorePod(pod, { ...ready, targets, storage, seccompProfile, placeholder }));
    if (patch.length === 0) return passed('already-shaped');
    const { namespace, name } = checkpoint.metadata;
    return { result: 'shaped', patch, checkpoint: `${namespace}/${name}`, checkpointId: ready.checkpointId };
  } catch (error) {
    if (error instanceof ShapingError) return { ...passed('conflict', error.message), about: checkpoint };
    throw error;
  }
}
