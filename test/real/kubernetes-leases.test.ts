import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { ANNOTATIONS } from '../../contract/keys.ts';
import { microTime } from '../../kube/lease-object.ts';
import type { Agent } from './environment/agent.ts';
import { becomesReadyToWork, readReadiness } from './environment/agent-metrics.ts';
import { CriuGate } from './environment/criu-gate.ts';
import { eventually } from './environment/host.ts';
import { KubeNode } from './environment/kube-node.ts';
import {
  dropAll,
  eventOf,
  eventReasons,
  jobEnded,
  jobStatus,
  NAMESPACE,
  runJob,
  type SourceJob,
} from './kubernetes-scenario.ts';
import { artifactPath, freshName, readRecord } from './scenario.ts';

/** Who may work on a checkpoint Job: one agent at a time, whatever its clock says. */
let kube: KubeNode;
let agent: Agent;
let criu: CriuGate;
/** Agents of one cluster share their key. */
let keyed: { readonly storage: object; readonly kubernetes: object };

beforeAll(async () => {
  kube = await KubeNode.start();
  criu = await CriuGate.make(kube.cluster);
  const file = join(kube.cluster.sharedDirectory, 'record.key');
  keyed = { storage: { key: { file, create: true } }, kubernetes: { leaseSeconds: 15 } };
  agent = await kube.startAgent({ ...criu.agent, config: { ...criu.agent.config, ...keyed } });
  await becomesReadyToWork(agent);
});
afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});
afterEach(() => {
  kube.api.heal();
  criu.open();
});

const OTHER = 'snapshot-agent/of-another-node';
const leaseOf = ({ jobKey }: { readonly jobKey: string }) => kube.api.get('leases', jobKey)?.spec ?? {};
const artifactOf = (job: SourceJob) => artifactPath(kube.cluster.volume, job);

/** Another agent holds the lease; its clock is off by so much. Each call of `renew` is a sign of life. */
function holdAs(
  name: string,
  { skewMs, durationSeconds }: { readonly skewMs: number; readonly durationSeconds: number },
) {
  const renew = () => {
    const time = microTime(new Date(Date.now() + skewMs));
    const current = kube.api.get('leases', `${NAMESPACE}/${name}`)?.spec ?? { acquireTime: time, leaseTransitions: 0 };
    kube.api.put({
      kind: 'Lease',
      metadata: { name, namespace: NAMESPACE },
      spec: { ...current, holderIdentity: OTHER, leaseDurationSeconds: durationSeconds, renewTime: time },
    });
  };
  renew();
  return { renew };
}

async function waitsForLease(job: SourceJob, on = agent): Promise<void> {
  const { id } = await kube.container(job.podKey);
  await on.waitForLog(
    'that it waits for the lease',
    (line) =>
      line['msg'] === 'not yet' && line['containerId'] === id && String(line['reason']).includes('holds the lease'),
  );
}

describe('a lease of another agent', () => {
  const HOUR_MS = 3_600_000;
  test.each([
    ['whose clock is right', 0],
    ['whose clock is an hour ahead', HOUR_MS],
    ['whose clock is ten years behind', -87_600 * HOUR_MS],
  ])(
    '%s is respected while it shows signs of life, and taken over when it has shown none for its duration',
    async (_, skewMs) => {
      const name = freshName('leased');
      const other = holdAs(name, { skewMs, durationSeconds: 2 });
      const job = runJob(kube, { name });
      await waitsForLease(job);
      // Longer than its duration, but never as long without a sign of life.
      const until = Date.now() + 4_000;
      await eventually(
        'its last sign of life',
        () => {
          other.renew();
          return Date.now() > until || undefined;
        },
        { everyMs: 500 },
      );
      const lastSignAtMs = Date.now();
      expect([leaseOf(job)['holderIdentity'], jobStatus(kube, job), existsSync(artifactOf(job))]).toEqual([
        OTHER,
        undefined,
        false,
      ]);
      expect(await jobEnded(kube, job)).toBe('Complete');
      expect(jobStatus(kube, job)).toBe('completed');
      const createdAt = Date.parse(String(readRecord(artifactOf(job))['createdAt']));
      expect(createdAt).toBeGreaterThan(lastSignAtMs + 1_500);
      const taken = kube.api.calls({ verb: 'update', resource: 'leases', name });
      expect(taken[0]?.body).toMatchObject({ spec: { leaseTransitions: 1 } });
      expect(agent.logs()).toContainEqual(
        expect.objectContaining({ msg: 'lease', lease: job.jobKey, kind: 'taken-over', from: OTHER }),
      );
      await eventually('that it is released', () => kube.api.get('leases', job.jobKey) === undefined || undefined);
    },
  );

  test('without the times that a lease has counts as free', async () => {
    const name = freshName('leased');
    kube.api.put({ kind: 'Lease', metadata: { name, namespace: NAMESPACE }, spec: { holderIdentity: OTHER } });
    const job = runJob(kube, { name });
    expect(await jobEnded(kube, job)).toBe('Complete');
  });
});

describe('a lease that another agent takes in the middle', () => {
  test('of a dump: the dump is undone, nothing is declared, and the worker goes on', async () => {
    await criu.hold('dump');
    const job = runJob(kube);
    await criu.reached('dump');
    const { jobKey } = job;
    const name = jobKey.slice(NAMESPACE.length + 1);
    const other = holdAs(name, { skewMs: 0, durationSeconds: 60 });
    const container = await kube.container(job.podKey);
    const lost = await agent.waitForLog(
      'that the lease is lost',
      (line) => line['msg'] === 'operation failed' && line['containerId'] === container.id,
    );
    expect(lost).toMatchObject({ code: 'LEASE_LOST', step: 'criu-dump' });
    criu.open();
    await waitsForLease(job);
    other.renew();
    expect([jobStatus(kube, job), existsSync(artifactOf(job))]).toEqual([undefined, false]);
    expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested']);
    expect((await container.status()).state).toBe('CONTAINER_RUNNING');
    expect(container.output()).not.toContainEqual({ released: true });
    expect(leaseOf(job)['holderIdentity']).toBe(OTHER);
    // The other one gives it back undone.
    kube.api.remove('leases', jobKey);
    expect(await jobEnded(kube, job)).toBe('Complete');
    expect(jobStatus(kube, job)).toBe('completed');
    await eventOf(kube, job.podKey, 'CheckpointSucceeded');
    expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested', 'CheckpointSucceeded']);
  });

  test('after the artifact is complete: it is not declared, but adopted once the other has declared it', async () => {
    const reading = kube.api.gate({ verb: 'get', resource: 'jobs' }, 'request');
    const job = runJob(kube);
    // The first look is the claim's, the second one is about to declare.
    (await reading.next()).release();
    const held = await reading.next();
    expect(readRecord(artifactOf(job))).toMatchObject({ checkpointId: job.id });
    holdAs(job.jobKey.slice(NAMESPACE.length + 1), { skewMs: 0, durationSeconds: 60 });
    const container = await kube.container(job.podKey);
    const lost = await agent.waitForLog(
      'that the lease is lost',
      (line) => line['msg'] === 'operation failed' && line['containerId'] === container.id,
    );
    expect(lost).toMatchObject({ code: 'LEASE_LOST', step: 'announce' });
    held.drop();
    await dropAll(reading);
    await waitsForLease(job);
    expect([jobStatus(kube, job), (await container.status()).state]).toEqual([undefined, 'CONTAINER_RUNNING']);

    kube.api.patch('jobs', job.jobKey, { metadata: { annotations: { [ANNOTATIONS.checkpointStatus]: 'completed' } } });
    kube.api.remove('leases', job.jobKey);
    expect(await container.ended()).toMatchObject({ exit_code: 0 });
    expect(await jobEnded(kube, job)).toBe('Complete');
    expect(kube.api.calls({ verb: 'patch', resource: 'jobs', name: job.jobKey.slice(NAMESPACE.length + 1) })).toEqual(
      [],
    );
  });
});

describe('two agents of one node name', () => {
  test('with one state directory: the second waits, and takes over when the first is killed', async () => {
    const second = await kube.cluster.startAgent({ ...criu.agent, stateName: 'node-1', config: agent.config() });
    onTestFinished(async () => {
      await second.end('SIGKILL');
      if (!agent.running) await agent.start();
      await becomesReadyToWork(agent);
    });
    await second.waitForLog('that it waits', (line) =>
      String(line['msg']).includes('another agent of this node is still at work'),
    );
    expect(await readReadiness(second)).toEqual({ ready: false, reasons: ['the agent is starting'] });
    await criu.hold('dump');
    const job = runJob(kube);
    await criu.reached('dump');
    await agent.end('SIGKILL');
    criu.open();
    // Its lease is the node's: nobody waits for it to expire.
    expect(await jobEnded(kube, job)).toBe('Complete');
    expect(jobStatus(kube, job)).toBe('completed');
    expect(leaseOf(job)).not.toMatchObject({ leaseTransitions: 1 });
    await eventOf(kube, job.podKey, 'CheckpointSucceeded');
    expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested', 'CheckpointSucceeded']);
  });

  test('with a state directory each, by mistake: one works on a Job, and the other takes over when its lease has expired', async () => {
    const config = { ...criu.agent.config, ...keyed };
    const second = await kube.startAgent({ ...criu.agent, stateName: 'mistaken', config });
    onTestFinished(() => second.end('SIGKILL').then(() => undefined));
    await becomesReadyToWork(second);
    await criu.hold('dump');
    const job = runJob(kube);
    await criu.reached('dump');
    const holder = leaseOf(job)['holderIdentity'];
    const isFirst = agent.logs().some((line) => line['kind'] === 'acquired' && line['lease'] === job.jobKey);
    const [active, other] = isFirst ? [agent, second] : [second, agent];
    await waitsForLease(job, other);
    await active.end('SIGKILL');
    criu.open();
    const diedAtMs = Date.now();
    expect(await jobEnded(kube, job)).toBe('Complete');
    expect(jobStatus(kube, job)).toBe('completed');
    // Seen alive last when it took the lease, or renewed it since.
    expect(Date.now() - diedAtMs).toBeGreaterThan(9_000);
    const from = { msg: 'lease', kind: 'taken-over', from: holder, lease: job.jobKey };
    expect(other.logs()).toContainEqual(expect.objectContaining(from));
    await eventOf(kube, job.podKey, 'CheckpointSucceeded');
    // Both began the same request.
    expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested', 'CheckpointSucceeded']);
  });
});
