import { type DynamoCheckpoint, readDynamoCheckpoint } from '../../../../contract/dynamo-checkpoint.ts';
import { ANNOTATIONS, LABELS } from '../../../../contract/keys.ts';
import type { Facts, Rival } from '../../../../operator/checkpoint/facts.ts';
import type { JobView } from '../../../../operator/checkpoint/job-view.ts';
import type { Json } from '../../../fakes/kube-api/resources.ts';
import { CHECKPOINT } from '../../crds/samples.ts';

/** Of the sample: its identity hash. */
export const ID = '4da999bc6c673b97';
export const JOB = `checkpoint-job-${ID}-1`;

interface Parts {
  readonly name?: string;
  readonly status?: Json;
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  readonly metadata?: Json;
  readonly spec?: (spec: Json) => Json;
}

/** The sample as the API server sends it, with what a test wants of it. */
export function checkpoint({
  name = 'qwen',
  status,
  labels,
  annotations,
  metadata,
  spec,
}: Parts = {}): DynamoCheckpoint {
  const own = structuredClone(CHECKPOINT['spec']) as Json;
  const read = readDynamoCheckpoint({
    metadata: {
      ...{ name, namespace: 'demo', uid: `uid-${name}`, resourceVersion: '1', generation: 1 },
      ...{ creationTimestamp: '2026-11-28T10:00:00Z', labels, annotations, ...metadata },
    },
    spec: spec?.(own) ?? own,
    ...(status === undefined ? {} : { status }),
  });
  if (read.result !== 'read') throw new Error(read.problem);
  return read.object;
}

const CLAIMED = { checkpointID: ID, identityHash: ID };
const LABELLED = { [LABELS.checkpointId]: ID };

/** One that has its id, and is in this phase. */
export const inPhase = (phase: string, more: Json = {}, annotations: Record<string, string> = {}) =>
  checkpoint({ status: { phase, ...CLAIMED, ...more }, labels: LABELLED, annotations });
export const pending = (parts: Parts = {}) =>
  checkpoint({ ...parts, status: { phase: 'Pending', ...CLAIMED }, labels: LABELLED });
export const creating = () => inPhase('Creating', { jobName: JOB });
export const RETRY = { [ANNOTATIONS.retry]: 'please' };

export const job = (more: Partial<JobView> = {}): JobView => ({
  ...{ name: JOB, uid: 'uid-job', owners: [{ name: 'qwen', uid: 'uid-qwen' }], isDeleting: false, version: '1' },
  ...{ declared: undefined, state: 'active', failure: '', ...more },
});

export const rival = (more: Partial<Rival> = {}): Rival => ({
  ...{ name: 'other', uid: 'uid-other', creationTimestamp: '2026-11-28T09:00:00Z', hasClaimed: false },
  ...{ isDeleting: false, ...more },
});

export const STORAGE: NonNullable<Facts['storage']> = {
  result: 'ready',
  storage: { accessMode: 'agentMount', claim: 'snapshot-pvc', basePath: '/checkpoints' },
};

/** What is known where nothing was looked at. */
export const facts = (more: Partial<Facts> = {}): Facts => ({
  rivals: [],
  job: { job: undefined, isLive: false },
  ...more,
});
/** A Job as the cache has it. */
export const withJob = (more: Partial<JobView> = {}, rest: Partial<Facts> = {}): Facts =>
  facts({ job: { job: job(more), isLive: false }, ...rest });
