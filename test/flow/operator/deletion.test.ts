import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ANNOTATIONS, LABELS } from '../../../contract/keys.ts';
import { idCheckpointJobName } from '../../../contract/names.ts';
import { cleanupJobName } from '../../../contract/operator-names.ts';
import { newEventWriter } from '../../../kube/events.ts';
import { newLeaseWatch } from '../../../operator/checkpoint/lease-watch.ts';
import {
  type ArtifactDeleter,
  type DeletionWord,
  newDeletionController,
} from '../../../operator/deletion/controller.ts';
import { newDeletionMetrics } from '../../../operator/deletion/metrics.ts';
import { FINALIZER } from '../../../operator/deletion/policy.ts';
import { completeJob, failJob, startJobPod } from '../../fakes/kube-api/job-controller.ts';
import type { Json } from '../../fakes/kube-api/resources.ts';
import { WRITES } from '../../fakes/kube-api/server.ts';
import { CHECKPOINT } from '../../unit/crds/samples.ts';
import { eventually } from '../kube/server.ts';
import { useControl } from './stage.ts';

const { stage, run, cache } = useControl();
const ID = 'one-id';
const JOB = `demo/${idCheckpointJobName(ID, '1')}`;
const CLEANUP = `demo/${cleanupJobName(ID)}`;
const DELETE = { [ANNOTATIONS.deletionPolicy]: 'Delete' };
const UNKNOWN_VERSIONS = { result: 'unknown', why: 'no agent is there' } as const;
const UNKNOWN: DeletionWord = { result: 'unknown', why: 'no agent is there' };

let words: Record<string, DeletionWord>;
let asked: string[];
/** What agents list. */
let listed: string[] | undefined;
let outcome: (jobKey: string, pod: string) => unknown;
/** The uids of all cleanup Jobs that ever were. */
let cleanups: Set<string>;
let metrics: ReturnType<typeof newDeletionMetrics>;
beforeEach(() => {
  [words, asked, listed, metrics, cleanups] = [{}, [], undefined, newDeletionMetrics(), new Set()];
  outcome = (job, pod) => completeJob(stage.api, job, pod);
  stage.api.put({ kind: 'PersistentVolumeClaim', metadata: { name: 'data', namespace: 'demo' }, spec: {} });
  // What the Job controller and the garbage collector do.
  let pods = 0;
  stage.api.onChange('jobs', ({ metadata, status }, isDeleted) => {
    const key = `${metadata.namespace}/${metadata.name}`;
    const isNew = key === CLEANUP && status?.['active'] === undefined && status?.['conditions'] === undefined;
    if (key === CLEANUP) cleanups.add(metadata.uid);
    if (isDeleted) return;
    if (metadata.deletionTimestamp !== undefined)
      setImmediate(() => stage.api.get('jobs', key) && stage.api.remove('jobs', key));
    else if (isNew)
      setImmediate(() => {
        const job = stage.api.get('jobs', key);
        if (job === undefined || job.status?.['startTime'] !== undefined) return;
        pods += 1;
        startJobPod(stage.api, key, `cleanup-${pods}`);
        outcome(key, `cleanup-${pods}`);
      });
  });
});

/** One process of the operator: ends with the test, or when it is killed. */
function operator(pvcName = 'data'): () => void {
  const killed = new AbortController();
  const { client, log } = stage;
  const agents: ArtifactDeleter = {
    versions: () => Promise.resolve(listed === undefined ? UNKNOWN_VERSIONS : { result: 'listed', versions: listed }),
    deleteArtifact: ({ namespace, checkpointId, version }) => {
      asked.push(`${namespace}/${checkpointId}/${version}`);
      return Promise.resolve(words[version] ?? UNKNOWN);
    },
  };
  const events = newEventWriter({ client, source: { component: 'snapshot-operator' } });
  const config = {
    pvcName,
    basePath: '/checkpoints',
    cleanupImage: 'operator:1',
    cleanupUser: 0,
    cleanupImagePullSecrets: [],
    parallel: 2,
  };
  const controller = newDeletionController({
    ...{ config, client, checkpoints: cache(), agents, events, log: log.log, isLeased: newLeaseWatch(client).isActive },
    metrics: { ...stage.metrics, ...metrics },
    timings: { pollMs: 10, retryMs: 20, maxRetryMs: 50 },
  });
  run((signal) => events.run(signal));
  run((signal) => controller.run(AbortSignal.any([signal, killed.signal])));
  return () => killed.abort();
}

function put(
  annotations: Record<string, string> = DELETE,
  name = 'one',
  status: Json = { checkpointID: ID, jobName: JOB.slice(5) },
) {
  return stage.api.put({
    ...CHECKPOINT,
    kind: 'DynamoCheckpoint',
    metadata: { name, namespace: 'demo', annotations },
    status,
  });
}
const get = (name = 'one') => stage.api.get('dynamocheckpoints', `demo/${name}`);
const held = () => eventually(() => expect(get()?.metadata.finalizers).toEqual([FINALIZER]));
const gone = () => eventually(() => expect(get()).toBeUndefined());
const remove = (name = 'one') => stage.api.delete('dynamocheckpoints', `demo/${name}`);
const reasons = () => stage.api.list('events').map((event) => (event as Json)['reason']);

describe('a DynamoCheckpoint whose artifacts are to go with it', () => {
  it('has a finalizer and its versions, and goes when agents have deleted all of them', async () => {
    put();
    operator();
    await held();
    stage.api.patch('dynamocheckpoints', 'demo/one', {
      metadata: { annotations: { [ANNOTATIONS.artifactVersion]: '2' } },
    });
    await eventually(() => expect(get()?.metadata.annotations?.[ANNOTATIONS.artifactVersions]).toBe('1,2'));
    words = { 1: { result: 'deleted' }, 2: { result: 'absent' } };
    remove();
    await gone();
    expect(asked).toEqual(['demo/one-id/1', 'demo/one-id/2']);
    expect(stage.api.get('jobs', CLEANUP)).toBeUndefined();
    await eventually(() => expect(reasons()).toEqual(['ArtifactsDeleted']));
  });

  it('takes versions with it that were made before its policy was to delete them', async () => {
    put();
    operator();
    await held();
    listed = ['0', '1'];
    words = { 0: { result: 'deleted' }, 1: { result: 'deleted' } };
    remove();
    await gone();
    expect(asked).toEqual(['demo/one-id/0', 'demo/one-id/1']);
  });

  it('waits for restores that read one', async () => {
    put();
    operator();
    await held();
    words = { 1: { result: 'in-use', why: 'it is being read by op-1' } };
    remove();
    await eventually(() => expect(reasons()).toEqual(['ArtifactsNotDeleted']));
    expect(get()).toBeDefined();
    words = { 1: { result: 'deleted' } };
    await gone();
  });

  it('ends its Job first, and waits for the agent that holds the lease', async () => {
    const { uid } = put().metadata;
    stage.api.put({
      kind: 'Job',
      metadata: {
        name: JOB.slice(5),
        namespace: 'demo',
        ownerReferences: [{ apiVersion: 'nvidia.com/v1alpha1', kind: 'DynamoCheckpoint', name: 'one', uid }],
      },
      spec: {},
    });
    const renewTime = new Date().toISOString().replace('Z', '000Z');
    stage.api.put({
      kind: 'Lease',
      metadata: { name: JOB.slice(5), namespace: 'demo' },
      spec: { holderIdentity: 'snapshot-agent/a', leaseDurationSeconds: 30, renewTime },
    });
    operator();
    await held();
    remove();
    await eventually(() => expect(stage.api.get('jobs', JOB)).toBeUndefined());
    await eventually(() =>
      expect(stage.log.said('artifacts are to be deleted').map((line) => line['waitsFor'])).toContain('agent'),
    );
    expect(asked).toEqual([]);
    words = { 1: { result: 'deleted' } };
    stage.api.remove('leases', JOB);
    await gone();
  });

  it('is cleaned by a Job where no agent can be asked, which is tried again when it fails', async () => {
    let tries = 0;
    outcome = (job, pod) => {
      tries += 1;
      return tries < 3 ? failJob(stage.api, job, pod) : completeJob(stage.api, job, pod);
    };
    put();
    operator();
    await held();
    remove();
    await gone();
    expect(tries).toBe(3);
    const failures = await metrics.registry.getSingleMetric('snapshot_operator_cleanup_failures_total')?.get();
    expect(failures?.values[0]?.value).toBe(2);
  });

  it('is let go where the claim is not there any more', async () => {
    stage.api.remove('persistentvolumeclaims', 'demo/data');
    put();
    operator();
    await held();
    remove();
    await gone();
    expect(stage.api.get('jobs', CLEANUP)).toBeUndefined();
  });

  it('waits, and says so, where nobody knows the storage; Retain lets it go', async () => {
    put();
    operator('');
    await held();
    remove();
    await eventually(() => expect(reasons()).toContain('ArtifactsNotDeleted'));
    stage.api.patch('dynamocheckpoints', 'demo/one', {
      metadata: { annotations: { [ANNOTATIONS.deletionPolicy]: 'Retain' } },
    });
    await gone();
  });

  it.each([
    ['whose claim is there still', 'data'],
    ['with agents that went, too', ''],
  ])('does not hold back a namespace that is being deleted, %s', async (_, pvcName) => {
    put();
    operator(pvcName);
    await held();
    const message = `jobs.batch is forbidden: unable to create new content in namespace demo because it is being terminated`;
    const refusal = { kind: 'refuse', code: 403, reason: 'Forbidden', message } as const;
    stage.api.fault({ verb: 'create', resource: 'jobs' }, refusal);
    remove();
    await gone();
    expect(stage.log.said('the namespace is being deleted: the checkpoint is let go')).toHaveLength(1);
  });

  it('keeps what another one has, too', async () => {
    put();
    put({}, 'two');
    operator();
    await held();
    remove();
    await gone();
    expect([asked, stage.api.get('jobs', CLEANUP)]).toEqual([[], undefined]);
  });

  it('keeps nothing for a duplicate that failed, and never had anything of it', async () => {
    put();
    const labels = { [LABELS.checkpointId]: ID };
    const metadata = { name: 'two', namespace: 'demo', labels };
    stage.api.put({ ...CHECKPOINT, kind: 'DynamoCheckpoint', metadata, status: { phase: 'Failed' } });
    operator();
    await held();
    words = { 1: { result: 'deleted' } };
    remove();
    await gone();
    expect(asked).toEqual(['demo/one-id/1']);
  });

  it('leaves a Job alone that only has the name', async () => {
    stage.api.put({
      kind: 'Job',
      metadata: { name: CLEANUP.slice(5), namespace: 'demo' },
      spec: {},
      status: { startTime: 'x', active: 1 },
    });
    put();
    operator();
    await held();
    remove();
    await eventually(() => expect(reasons()).toContain('ArtifactsNotDeleted'));
    expect(get()).toBeDefined();
    stage.api.remove('jobs', CLEANUP);
    await gone();
  });
});

describe('a DynamoCheckpoint whose artifacts stay', () => {
  it.each([[{}], [{ [ANNOTATIONS.deletionPolicy]: 'Retain', [ANNOTATIONS.autoCheckpoint]: 'true' }]])(
    '%j goes at once',
    async (annotations) => {
      put(annotations);
      put(DELETE, 'other', {});
      operator();
      await eventually(() => expect(get('other')?.metadata.finalizers).toEqual([FINALIZER]));
      expect(get()?.metadata.finalizers).toBeUndefined();
      remove();
      expect([get(), asked]).toEqual([undefined, []]);
    },
  );
});

describe('an operator that is killed', () => {
  const pattern = { verb: WRITES, where: ({ resource }: { resource: string }) => resource !== 'events' };
  let open: (() => void) | undefined;
  afterEach(() => open?.());

  it.each([1, 2, 3, 4].flatMap((nth) => (['request', 'answer'] as const).map((at) => [nth, at] as const)))(
    'at write %i, at its %s, leaves the next one to finish',
    async (nth, at) => {
      const { uid } = put().metadata;
      stage.api.put({
        kind: 'Job',
        metadata: {
          name: JOB.slice(5),
          namespace: 'demo',
          ownerReferences: [{ apiVersion: 'nvidia.com/v1alpha1', kind: 'DynamoCheckpoint', name: 'one', uid }],
        },
        spec: {},
      });
      const gate = stage.api.gate(pattern, at);
      open = () => gate.open();
      const kill = operator();
      for (let write = 1; write <= nth; write += 1) {
        const call = await gate.next();
        if (write < nth) call.release();
        else {
          kill();
          call.drop();
        }
        if (write === 1 && nth > 1) {
          await held();
          remove();
        }
      }
      gate.open();
      operator();
      if (nth === 1) {
        await held();
        remove();
      }
      await gone();
      expect(stage.api.get('jobs', JOB)).toBeUndefined();
      expect(cleanups.size).toBe(1);
    },
  );
});
