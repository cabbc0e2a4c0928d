import { X509Certificate } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ANNOTATIONS } from '../../contract/keys.ts';
import { issueCertificate } from '../../kube/certificates/issuing.ts';
import type { Json } from '../fakes/kube-api/resources.ts';
import { CriuGate } from './environment/criu-gate.ts';
import { keyOf } from './kubernetes-scenario.ts';
import { automaticGraph, sample, wasRestored, wasStartedCold } from './operator-samples.ts';
import { CLAIM, OperatedCluster, WEBHOOK_SECRET, WEBHOOK_SERVICE } from './operator-scenario.ts';

/** What goes wrong around the operator, with real pods: each ends as it should, without a second Job and without a lost artifact. */
const DAY_MS = 86_400_000;
let cluster: OperatedCluster;
let criu: CriuGate;
/** By name: the Jobs that ever were. */
let jobs: Map<string, Set<string>>;

beforeAll(async () => {
  cluster = await OperatedCluster.start({
    accessMode: 'podMount',
    config: { checkpoint: { storage: { pvc: { create: false } } } },
    agent: async (one) => {
      criu = await CriuGate.make(one);
      return criu.agent;
    },
  });
  jobs = new Map();
  cluster.api.onChange('jobs', ({ metadata: { name, uid } }) => {
    jobs.set(name, (jobs.get(name) ?? new Set()).add(uid));
  });
  await cluster.startOperator();
  await cluster.isUp();
});
afterEach(() => {
  cluster.api.heal();
  criu.open();
});
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.kube.cluster.leftovers()).toEqual([]);
});

/** A checkpoint of the sample worker with an identity of its own. */
function apply(name: string, model = name): void {
  const object = sample('dynamocheckpoint.yaml', name);
  cluster.apply({ ...object, spec: { ...object.spec, identity: { ...(object.spec['identity'] as Json), model } } });
}

/** One that is under way: CRIU is held before it dumps. */
async function underWay(name: string): Promise<void> {
  await criu.hold('dump');
  apply(name);
  await criu.reached('dump');
  expect(cluster.checkpoint(name)?.status?.['phase']).toBe('Creating');
}

/** It became Ready, from one Job, with its artifact. */
async function endedWell(name: string): Promise<Json> {
  const status = await cluster.phase(name, 'Ready');
  expect(cluster.hasArtifact(String(status['checkpointID']))).toBe(true);
  expect(jobs.get(String(status['jobName']))?.size).toBe(1);
  return status;
}

const condition = (name: string, type: string) =>
  ((cluster.checkpoint(name)?.status?.['conditions'] ?? []) as Json[]).find((one) => one['type'] === type);

test('the claim is missing: it is said, no Job is made, and it goes on once somebody made the claim', async () => {
  apply('claimless');
  const status = await cluster.waitFor('that the claim is missed', () => {
    const isMissed = condition('claimless', 'StorageReady')?.['status'] === 'False';
    return isMissed ? cluster.checkpoint('claimless')?.status : undefined;
  });
  expect(status).toMatchObject({ phase: 'Pending', message: expect.stringContaining(CLAIM) });
  expect(cluster.api.list('jobs')).toEqual([]);
  cluster.api.put({ kind: 'PersistentVolumeClaim', metadata: { name: CLAIM, namespace: 'demo' }, spec: {} });
  await endedWell('claimless');
});

test('two with one ID: the first keeps it, the second fails and says whose it is', async () => {
  apply('first', 'shared');
  const { checkpointID } = await endedWell('first');
  apply('second', 'shared');
  const status = await cluster.phase('second', 'Failed');
  expect(status['message']).toBe(`checkpoint ID ${String(checkpointID)} is already owned by first`);
  expect(cluster.jobs(String(checkpointID))).toHaveLength(1);
  await endedWell('first');
});

test('the agent is killed while it checkpoints: the next one goes on with the same Job', async () => {
  await underWay('agentless');
  await cluster.agent.end('SIGKILL');
  criu.open();
  await sleep(1_000);
  expect(cluster.checkpoint('agentless')?.status?.['phase']).toBe('Creating');
  await cluster.agent.start();
  await endedWell('agentless');
});

test('the Job is deleted: Failed, and another try on request', async () => {
  await underWay('jobless');
  const jobName = cluster.checkpoint('jobless')?.status?.['jobName'];
  cluster.api.delete('jobs', keyOf(String(jobName)));
  const failed = await cluster.phase('jobless', 'Failed');
  expect(failed['message']).toContain('checkpoint job was deleted');
  await criu.release('dump');
  await cluster.waitFor('the end of its pod', () => {
    const isOf = (pod: { metadata: { name: string } }) => pod.metadata.name.startsWith(String(jobName));
    return cluster.api.list('pods').some(isOf) ? undefined : true;
  });
  expect(jobs.get(String(jobName))?.size).toBe(1);
  cluster.api.patch('dynamocheckpoints', keyOf('jobless'), {
    metadata: { annotations: { [ANNOTATIONS.retry]: 'true' } },
  });
  const { checkpointID } = await cluster.phase('jobless', 'Ready');
  expect(cluster.hasArtifact(String(checkpointID))).toBe(true);
});

describe('the API server is away', () => {
  test('shortly: the operator bears it', async () => {
    await underWay('interrupted');
    await cluster.api.goAway();
    await sleep(500);
    await cluster.api.comeBack();
    await criu.release('dump');
    await endedWell('interrupted');
    expect(cluster.operator.running).toBe(true);
  });

  test('for long: the operator ends, as somebody else may lead, and its next start goes on', async () => {
    await underWay('outage');
    await cluster.api.goAway();
    await cluster.waitFor('the end of the operator', () => (cluster.operator.running ? undefined : true));
    expect(await cluster.operator.end()).toBe(1);
    await cluster.api.comeBack();
    await cluster.operator.start();
    await criu.release('dump');
    await endedWell('outage');
  });
});

test('the certificate of the webhook has run out: pods start cold meanwhile, and are restored once it is renewed', async () => {
  cluster.apply(automaticGraph('expired', 'Immediate'));
  await cluster.ready('expired', 1);
  await cluster.checkpointed('expired');
  await cluster.operator.end('SIGKILL');
  const [namespace = '', service = ''] = WEBHOOK_SERVICE.split('/');
  const secret = () => cluster.api.get('secrets', WEBHOOK_SECRET)?.['data'] as Record<string, string>;
  const text = (key: string) => Buffer.from(secret()[key] ?? '', 'base64').toString();
  const form = { name: `${service}.${namespace}.svc`, side: 'server', nowMs: Date.now() - 2 * DAY_MS } as const;
  const authority = { certificate: text('ca.crt'), key: text('ca.key') };
  const old = await issueCertificate(authority, { ...form, notAfterMs: Date.now() - DAY_MS });
  const base64 = (pem: string) => Buffer.from(pem).toString('base64');
  cluster.api.patch('secrets', WEBHOOK_SECRET, {
    data: { 'tls.crt': base64(old.certificate), 'tls.key': base64(old.key) },
  });
  const scale = (replicas: number) =>
    cluster.api.patch('dynamographdeployments', keyOf('expired'), {
      spec: { services: { SampleWorker: { replicas } } },
    });
  // It is held before it can renew it: the certificate is shown as it is.
  const renewal = cluster.api.gate({ verb: ['update', 'patch'], resource: 'secrets' }, 'request');
  cluster.runOutLease();
  await cluster.operator.start();
  const held = await renewal.next();
  expect(await cluster.operator.unready()).toContain('the certificate of the webhook has run out');
  scale(2);
  const [, cold = ''] = await cluster.ready('expired', 2);
  wasStartedCold(await cluster.kube.container(keyOf(cold)));
  held.release();
  renewal.open();
  await cluster.waitFor('a new certificate', () => {
    const { validTo } = new X509Certificate(Buffer.from(secret()['tls.crt'] ?? '', 'base64'));
    return Date.parse(validTo) > Date.now() || undefined;
  });
  await cluster.isUp();
  scale(3);
  const [, , restored = ''] = await cluster.ready('expired', 3);
  await wasRestored(await cluster.kube.container(keyOf(restored)), restored);
});

test('a second replica takes over: checkpoint and webhook, once the lease of the dead has run out', async () => {
  const first = cluster.operator;
  const second = await cluster.startOperator();
  await underWay('handed-over');
  expect(second.leads).toBe(false);
  await first.end('SIGKILL');
  await criu.release('dump');
  await endedWell('handed-over');
  expect(second.leads).toBe(true);
  cluster.api.patch('dynamographdeployments', keyOf('expired'), {
    spec: { services: { SampleWorker: { replicas: 4 } } },
  });
  const restored = (await cluster.ready('expired', 4)).at(-1) ?? '';
  await wasRestored(await cluster.kube.container(keyOf(restored)), restored);
});
