import { expect, it } from 'vitest';
import { readDynamoCheckpoint } from '../../../../contract/dynamo-checkpoint.ts';
import type { KubeClient } from '../../../../kube/client.ts';
import { JobDesk } from '../../../../operator/checkpoint/job-desk.ts';
import { newLeaseWatch } from '../../../../operator/checkpoint/lease-watch.ts';
import { Looks } from '../../../../operator/checkpoint/looks.ts';
import { CheckpointReconciler } from '../../../../operator/checkpoint/reconcile.ts';
import { memoryLog } from '../../../fakes/log.ts';
import { CHECKPOINT } from '../../crds/samples.ts';

it('a checkpoint that cannot be understood is said to be so beside it, and nothing is done about it', async () => {
  const value = readDynamoCheckpoint({
    ...CHECKPOINT,
    metadata: { name: 'qwen', namespace: 'demo', uid: 'u', resourceVersion: '1' },
    spec: { identity: { model: 'm', backendFramework: 'tensorflow' }, job: {} },
  });
  const client = { request: () => Promise.reject(new Error('nothing is to be asked')) } as unknown as KubeClient;
  const said: string[] = [];
  const { log, said: logged } = memoryLog();
  const clock = () => 0;
  const caches = { checkpoints: { get: () => undefined, indexed: () => [] }, jobs: { get: () => undefined } };
  const reconciler = new CheckpointReconciler({
    checkpoints: {
      get: (key) => ({ key, meta: { name: 'qwen', namespace: 'demo', uid: 'u', resourceVersion: '1' }, value }),
      remember: () => undefined,
    },
    looks: new Looks({
      ...{ ...caches, client, clock, pods: { indexed: () => [] }, agents: undefined, storage: {}, eventGraceMs: 0 },
      leases: newLeaseWatch(client, clock),
    }),
    jobs: new JobDesk(client, { disabled: false, profile: '' }),
    statuses: { write: () => Promise.reject(new Error('nothing is to be written')) },
    recorder: {
      normal: () => undefined,
      warning: ({ metadata }, reason, message) => said.push(`${metadata.name} ${reason} ${message}`),
    },
    ...{ log, clock, now: () => new Date(0) },
    timings: { lease: 1, event: 1, storage: 1, deletion: 1, permission: 1, progress: 1 },
  });
  expect(await reconciler.reconcile('demo/qwen', new AbortController().signal)).toBeUndefined();
  expect(said).toEqual([
    expect.stringMatching(/^qwen CheckpointFailed it cannot be understood: spec\.identity\.backend/),
  ]);
  expect(logged('the DynamoCheckpoint cannot be understood')).toHaveLength(1);
});
