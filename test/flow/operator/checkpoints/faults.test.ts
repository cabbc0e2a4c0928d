import { describe, expect, it } from 'vitest';
import { ANNOTATIONS } from '../../../../contract/keys.ts';
import { serverError, tooManyRequests, WRITES } from '../../../fakes/kube-api/server.ts';
import { eventually } from '../../kube/server.ts';
import { CLAIM, ID, JOB, JOB_KEY, type RunningOperator, useCheckpoints } from './stage.ts';

const { stage, start, apply, statusOf, annotate, declare, startPod, complete, work, eventsOf } = useCheckpoints();

const MINE = { verb: WRITES, where: ({ resource }: { resource: string }) => resource !== 'events' };
const inPhase = (phase: string) => eventually(() => expect(statusOf().phase).toBe(phase));

/** Kills an operator whose call is held: it never learns what became of it. */
async function killed(operator: RunningOperator, held: { drop(): void }): Promise<void> {
  const gone = operator.kill();
  held.drop();
  await gone;
}

/** What a checkpoint comes to, however often the operator was killed on the way. */
async function isReadyOnce(created: readonly string[]): Promise<void> {
  await inPhase('Ready');
  await eventually(() => expect(eventsOf('CheckpointReady')).toHaveLength(1));
  expect(statusOf()).toMatchObject({ checkpointID: ID, identityHash: ID, jobName: JOB, message: '' });
  expect(new Set(created).size).toBe(1);
  expect(eventsOf('CheckpointFailed')).toEqual([]);
}

describe('an operator that is killed', () => {
  // Claim, label, volume claim, Job, Creating, Ready: with each write before or after it was stored.
  const writes = [1, 2, 3, 4, 5, 6];
  it.each(writes.flatMap((nth) => [[nth, 'request'] as const, [nth, 'answer'] as const]))(
    'at its write %i (%s) leaves the next one what it needs to come to the same end',
    async (nth, at) => {
      const jobs: string[] = [];
      stage.api.onChange('jobs', ({ metadata }) => jobs.push(metadata.uid));
      work();
      const config = { storage: { pvc: CLAIM }, seccomp: { disabled: false, profile: '' } };
      const gate = stage.api.gate(MINE, at);
      const first = start({ config });
      apply();
      for (let passed = 1; passed < nth; passed += 1) (await gate.next()).release();
      const held = await gate.next();
      await killed(first, held);
      gate.open();
      start({ config });
      await isReadyOnce(jobs);
      expect(stage.api.list('persistentvolumeclaims')).toHaveLength(1);
    },
  );

  it('at each of its writes comes to the same end', async () => {
    const jobs: string[] = [];
    stage.api.onChange('jobs', ({ metadata }) => jobs.push(metadata.uid));
    work();
    apply();
    for (let kills = 0; statusOf().phase !== 'Ready'; kills += 1) {
      expect(kills).toBeLessThan(20);
      // A Job that is there already is found by the attempt to make it, which writes nothing.
      const isWrite = (call: { resource: string }) =>
        MINE.where(call) && (call.resource !== 'jobs' || jobs.length === 0);
      const gate = stage.api.gate({ verb: WRITES, where: isWrite }, 'answer');
      const operator = start();
      const held = await gate.next();
      await killed(operator, held);
      gate.open();
    }
    start();
    await isReadyOnce(jobs);
  });

  it.each(['request', 'answer'] as const)('at each write of a try more (%s) comes to one new Job', async (at) => {
    const first = start();
    apply();
    await inPhase('Creating');
    const { uid } = stage.api.get('jobs', JOB_KEY)?.metadata ?? {};
    startPod();
    declare('failed');
    await inPhase('Failed');
    await first.kill();
    const jobs: string[] = [];
    stage.api.onChange('jobs', ({ metadata }, isDeleted) => isDeleted || jobs.push(metadata.uid));
    annotate({ [ANNOTATIONS.retry]: 'now' });
    // Delete, Pending, the annotation, Job, Creating.
    for (let write = 1; write <= 5; write += 1) {
      const gate = stage.api.gate(MINE, at);
      const operator = start();
      for (let passed = 1; at === 'request' && passed < write; passed += 1) {
        if (statusOf().phase === 'Creating') break;
        (await gate.next()).release();
      }
      if (statusOf().phase === 'Creating') {
        gate.open();
        await operator.kill();
        break;
      }
      const held = await gate.next();
      await killed(operator, held);
      gate.open();
    }
    start();
    await inPhase('Creating');
    startPod();
    declare('completed');
    complete();
    await inPhase('Ready');
    expect([...new Set(jobs)].filter((one) => one !== uid)).toHaveLength(1);
    expect(stage.api.get('dynamocheckpoints', 'demo/qwen')?.metadata.annotations ?? {}).toEqual({});
  });

  it('before its Event was stored leaves it to the next one', async () => {
    work();
    const gate = stage.api.gate({ verb: WRITES, resource: 'events' }, 'request');
    const first = start();
    apply();
    await inPhase('Ready');
    const held = await gate.next();
    await killed(first, held);
    gate.open();
    expect(eventsOf('CheckpointReady')).toEqual([]);
    start();
    await eventually(() => expect(eventsOf('CheckpointReady')).toHaveLength(1));
  });
});

describe('a Kubernetes API with troubles', () => {
  it.each<[string, () => unknown, (() => unknown)?]>([
    ['loses answers', () => stage.api.fault({ verb: WRITES }, { kind: 'reset', at: 'answer' }, { times: 6 })],
    ['loses requests', () => stage.api.fault({}, { kind: 'reset', at: 'request' }, { times: 10 })],
    ['fails', () => stage.api.fault({}, serverError(500), { times: 10 })],
    ['is busy', () => stage.api.fault({}, tooManyRequests(0), { times: 10 })],
    ['is away', () => stage.api.goAway(), () => stage.api.comeBack({ forbiddenCalls: 3 })],
  ])('that %s leads to the same end', async (_, spoil, mend) => {
    const jobs: string[] = [];
    stage.api.onChange('jobs', ({ metadata }) => jobs.push(metadata.uid));
    work();
    apply();
    await spoil();
    start();
    await mend?.();
    await isReadyOnce(jobs);
  });

  it('goes away while the Job runs, and what happened meanwhile is seen', async () => {
    start();
    apply();
    await inPhase('Creating');
    await stage.api.goAway();
    startPod();
    declare('completed');
    complete();
    stage.api.compact();
    await stage.api.comeBack();
    await inPhase('Ready');
  });

  it('has somebody who decided otherwise first, and is believed', async () => {
    start();
    apply();
    await inPhase('Creating');
    const gate = stage.api.gate({ verb: 'patch', subresource: 'status' }, 'request');
    stage.api.remove('jobs', JOB_KEY);
    const held = await gate.next();
    expect(held.call.body).toMatchObject({ status: { phase: 'Failed' } });
    stage.api.patch('dynamocheckpoints', 'demo/qwen', { status: { phase: 'Ready', message: 'by somebody else' } });
    held.release();
    gate.open();
    apply('late', { spec: { identity: { model: 'other', backendFramework: 'vllm' } } });
    await eventually(() => expect(statusOf('late').phase).toBe('Creating'));
    expect(statusOf()).toMatchObject({ phase: 'Ready', message: 'by somebody else' });
  });

  it('has somebody who writes the checkpoint all the time', async () => {
    const jobs: string[] = [];
    stage.api.onChange('jobs', ({ metadata }) => jobs.push(metadata.uid));
    let storms = 0;
    // Somebody else is first before each of the first writes.
    const calm = stage.api.onCall(({ verb, resource }) => {
      if (verb !== 'patch' || resource !== 'dynamocheckpoints' || storms >= 12) return;
      storms += 1;
      annotate({ storm: String(storms) });
    });
    work();
    start();
    apply();
    await isReadyOnce(jobs);
    calm();
    expect(storms).toBe(12);
  });
});
