import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { claimJob } from '../../agent/cluster/checkpoint-claim.ts';
import { newKubeReporter } from '../../agent/cluster/reporter.ts';
import { SnapshotError } from '../../agent/errors.ts';
import type { OperationRequest, Outcome } from '../../agent/operations/context.ts';
import type { Claim } from '../../agent/operations/reporter.ts';
import type { CheckpointWanted } from '../../agent/plan/decide.ts';
import { ANNOTATIONS } from '../../contract/keys.ts';
import type { PodView } from '../../contract/pods.ts';
import { type KubeClient, openKube } from '../../kube/client.ts';
import { type Leases, openLeases } from '../../kube/lease.ts';
import { type KubeApi, startKubeApi } from '../fakes/kube-api/server.ts';

/** What becomes of an operation whose Job cannot be declared: it holds a place among the parallel ones, so it must not wait for ever. */
let api: KubeApi;
let dir: string;
let client: KubeClient;
let leases: Leases;
let uid: string;
const claims: Claim[] = [];
beforeEach(async () => {
  api = await startKubeApi();
  dir = await mkdtemp(join(tmpdir(), 'claim-'));
  client = await openKube({ kubeconfigPath: await api.writeKubeconfig(dir) });
  leases = openLeases({ client, holder: 'agent' });
  const template = { spec: { containers: [{ name: 'main' }] } };
  api.put({ kind: 'Job', metadata: { name: 'train', namespace: 'team' }, spec: { template } });
  uid = String(api.get('jobs', 'team/train')?.metadata.uid);
});
afterEach(async () => {
  await Promise.all(claims.splice(0).map((claim) => claim.end(SUCCEEDED, true)));
  client.close();
  await api.close();
  await rm(dir, { recursive: true });
});

const SUCCEEDED: Outcome = { result: 'succeeded', timings: [], figures: {} };
const NEVER = new AbortController().signal;
const log = pino({ level: 'silent' });

const ask = () => {
  const request = { traceId: '1'.repeat(32), signal: NEVER } as unknown as OperationRequest<CheckpointWanted>;
  return claimJob({ client, leases, log, declareMs: 500 }, { namespace: 'team', name: 'train', uid }, request);
};
async function claimed(): Promise<Claim> {
  const claim = await ask();
  if ('result' in claim) throw new Error(claim.reason);
  claims.push(claim);
  return claim;
}
const patches = () => api.calls({ verb: 'patch', resource: 'jobs' }).length;
const status = () => api.get('jobs', 'team/train')?.metadata.annotations?.[ANNOTATIONS.checkpointStatus];
/** So many bytes are allowed to the annotations of an object, keys and values. */
const fillAnnotations = () =>
  api.patch('jobs', 'team/train', { metadata: { annotations: { filler: 'x'.repeat(262_144 - 'filler'.length) } } });

describe('a Job that cannot be declared complete', () => {
  it('because its annotations are full: that is said at once, with its name', async () => {
    fillAnnotations();
    const claim = await claimed();
    await expect(claim.declareComplete(NEVER)).rejects.toMatchObject({
      code: 'KUBERNETES_REFUSED',
      retryable: false,
      message: expect.stringMatching(/^Job team\/train cannot be annotated: PATCH .* 422 Invalid/),
    });
    expect([patches(), status()]).toEqual([1, undefined]);
  });

  it.each([400, 405, 413, 415])('because the API answers %i: it is not asked again', async (code) => {
    api.fault({ verb: 'patch', resource: 'jobs' }, { kind: 'refuse', code });
    await expect((await claimed()).declareComplete(NEVER)).rejects.toMatchObject({ code: 'KUBERNETES_REFUSED' });
    expect(patches()).toBe(1);
  });

  it.each([401, 403, 409, 429, 500, 503])('while the API answers %i: it is asked again', async (code) => {
    api.fault({ verb: 'patch', resource: 'jobs' }, { kind: 'refuse', code }, { times: 2 });
    const claim = await claimed();
    // In time or not: a later look goes on where this one ended.
    await claim.declareComplete(NEVER).catch((error: unknown) => {
      if (!(error instanceof SnapshotError && error.code === 'JOB_UNDECLARED')) throw error;
    });
    await claim.declareComplete(NEVER);
    expect(status()).toBe('completed');
  });

  it('in time: its operation ends, its lease is let go, and a later look declares it', async () => {
    const fault = api.fault({ verb: 'patch', resource: 'jobs' }, { kind: 'refuse', code: 503 });
    const claim = await claimed();
    const failure = await claim.declareComplete(NEVER).catch((error: unknown) => error);
    expect(failure).toMatchObject({
      code: 'JOB_UNDECLARED',
      retryable: true,
      message: expect.stringMatching(/^Job train could not be declared complete: .* 503/),
    });
    await claim.end({ ...SUCCEEDED, result: 'failed', failure: failure as SnapshotError }, false);
    expect([status(), api.get('leases', 'team/train')]).toEqual([undefined, undefined]);
    fault.lift();
    await (await claimed()).declareComplete(NEVER);
    expect(status()).toBe('completed');
  });

  it('before its operation is cancelled: that is what it ends with', async () => {
    api.fault({ verb: 'patch', resource: 'jobs' }, { kind: 'silent', at: 'request' });
    const claim = await claimed();
    const cancel = new AbortController();
    api.onCall(({ verb }) => verb === 'patch' && cancel.abort(new SnapshotError('CANCELLED', 'somebody did')));
    await expect(claim.declareComplete(cancel.signal)).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});

it('a second pod of a Job waits while this agent is at work on the first', async () => {
  const first = await claimed();
  expect(await ask()).toEqual({
    result: 'too-early',
    reason: 'agent holds the lease of Job train',
    code: 'LEASE_LOST',
  });
  await first.end(SUCCEEDED, true);
  expect((await claimed()).isCompleted).toBe(false);
});

it('a Job that cannot be declared failed does not keep the other containers of its pod running', async () => {
  fillAnnotations();
  const killed: string[] = [];
  const notes: string[] = [];
  const reporter = newKubeReporter({
    ...{ client, leases, log },
    events: { write: ({ reason }) => notes.push(reason) },
    killContainer: (id) => Promise.resolve(void killed.push(id)),
    onRedriven: () => undefined,
  });
  const pod = { uid: 'u', namespace: 'team', name: 'train-pod', kubernetes: { job: { name: 'train', uid } } };
  await reporter.workerFailed(pod as unknown as PodView, {
    kind: 'worker-failed',
    failed: [{ name: 'side', exitCode: 3, reason: 'Error' }],
    running: [{ name: 'main', id: 'c1', state: 'running', attempt: 0 }],
  });
  expect([killed, notes, status()]).toEqual([['c1'], ['CheckpointFailed'], undefined]);
});
