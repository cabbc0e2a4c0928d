import { existsSync } from 'node:fs';
import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Answer } from '../flow/grpc/client.ts';
import { workload } from './environment/pod.ts';
import { expectNothingUnderWay, HeldNode, named, type Place } from './grpc/held.ts';
import { type Plain, stepsSeen } from './grpc/node.ts';
import { artifactPath, markReady } from './scenario.ts';

const UNDONE: readonly Place[] = [
  { step: '' },
  { step: 'inspect' },
  { step: 'preflight' },
  { step: 'stage' },
  { step: 'quiesced' },
  { step: 'cuda-lock' },
  { step: 'cuda-checkpoint' },
  { step: 'criu-dump' },
  { step: 'criu-dump', program: 'criu' },
  { step: 'criu-dump', program: 'capture' },
  { step: 'resume' },
  { step: 'finalize' },
  { step: 'finalize', program: 'bulk-write' },
];
const TOO_LATE: readonly Place[] = [{ step: 'publish' }, { step: 'announce' }, { step: 'release' }];

let held: HeldNode;
/** One and the same container for all of them, and one id: each proves that the one before left nothing. */
let source: Plain;
const id = 'cancelled';

beforeAll(async () => {
  held = await HeldNode.start();
  source = await held.node.runPlain({ command: workload('memory', '8'), control: true });
  await markReady(source.container);
});
afterEach(() => held.letGo());
afterAll(async () => {
  expect(await held?.stop()).toEqual([]);
});

const artifact = (checkpointId: string) => artifactPath(held.node.cluster.volume, { id: checkpointId, version: '1' });

const hold = (place: Place, more: object) => held.hold(place, 'Checkpoint', source, more);

function expectCancelled(end: Answer): void {
  expect(end).toMatchObject({ done: true, result: 'error', metadata: { state: 'OPERATION_STATE_FAILED' } });
  const { code, info } = held.node.api.statusDetails(end.error);
  expect([code, info.reason]).toEqual([status.CANCELLED, 'CANCELLED']);
}

async function beats(): Promise<number> {
  const verdict = await source.container.check();
  expect(verdict).toMatchObject({ check: 'ok' });
  return Number(verdict['beats']);
}

test('the steps of a checkpoint are those in which one is cancelled here, and a watch shows each of them', async () => {
  const operation = await hold({ step: '' }, { checkpoint_id: 'each-step' });
  const watch = held.node.api.watch('WatchOperation', { name: operation.name });
  const { metadata } = await held.goOnTo('release', operation);
  await watch.until((message) => message.metadata.step === 'release');
  const tried = [...UNDONE, ...TOO_LATE].map(({ step }) => step).filter((step) => step !== '');
  expect(stepsSeen(watch)).toEqual([...new Set(tried)]);
  expect(metadata.timings.map(({ step }: { step: string }) => step)).toEqual([
    ...['resolve', 'pin', 'attach'],
    ...[...new Set(tried)].slice(0, -1),
  ]);
  await held.letGo();
  expect(await watch.ended).toBeUndefined();
});

describe('a checkpoint is cancelled', () => {
  test.each(named(UNDONE))('$where: all of it is undone', async (place) => {
    const before = await beats();
    const operation = await hold(place, { checkpoint_id: id });
    expect(operation.metadata).toMatchObject({ step: place.step, cancel_effect: 'CANCEL_EFFECT_UNDONE' });
    const end = await held.cancel(operation);
    expectCancelled(end);
    expect(await beats()).toBeGreaterThan(before);
    expect(existsSync(artifact(id))).toBe(false);
    await expectNothingUnderWay(held.node.cluster);
  });

  test.each(named(TOO_LATE))('$where: it is too late, and it succeeds', async (place) => {
    const late = `late-in-${place.step}`;
    const operation = await hold(place, { checkpoint_id: late });
    expect(operation.metadata).toMatchObject({ step: place.step, cancel_effect: 'CANCEL_EFFECT_TOO_LATE' });
    const end = await held.cancel(operation);
    expect(end).toMatchObject({ result: 'response', metadata: { state: 'OPERATION_STATE_SUCCEEDED' } });
    await held.node.api.ask('VerifyCheckpoint', { checkpoint_id: late });
    await expectNothingUnderWay(held.node.cluster);
    // Cancelling once more changes nothing.
    expect(await held.node.api.ask('CancelOperation', { name: end.name })).toEqual(end);
  });

  test('that often, its container is checkpointed all the same, and what is restored is whole', async () => {
    const before = await beats();
    await held.node.perform('Checkpoint', source, { checkpoint_id: id });
    const target = await held.node.runPlaceholder({ control: true });
    await held.node.perform('Restore', target, { checkpoint_id: id });
    const verdict = await target.container.check();
    expect(verdict).toMatchObject({ check: 'ok' });
    expect(verdict['beats']).toBeGreaterThan(before);
    await target.pod.remove();
  });
});

describe('a checkpoint that ends its container is cancelled', () => {
  const stopping = { checkpoint_id: 'stopping', after: 'AFTER_CHECKPOINT_STOP' };

  const frozen: readonly Place[] = [{ step: 'criu-dump' }, { step: 'criu-dump', program: 'capture' }];
  test.each(named(frozen))('$where: all of it is undone', async (place) => {
    const before = await beats();
    const operation = await hold(place, stopping);
    expect(operation.metadata.cancel_effect).toBe('CANCEL_EFFECT_UNDONE');
    expectCancelled(await held.cancel(operation));
    expect(await beats()).toBeGreaterThan(before);
    await expectNothingUnderWay(held.node.cluster);
  });

  test('when that has ended: it is too late, and it succeeds', async () => {
    const operation = await hold({ step: 'finalize', program: 'bulk-write' }, stopping);
    expect(operation.metadata.cancel_effect).toBe('CANCEL_EFFECT_TOO_LATE');
    expect(await source.container.ended()).toMatchObject({ exit_code: 137 });
    const end = await held.cancel(operation);
    expect(end).toMatchObject({ result: 'response', metadata: { state: 'OPERATION_STATE_SUCCEEDED' } });
    await held.node.api.ask('VerifyCheckpoint', { checkpoint_id: stopping.checkpoint_id });
    await expectNothingUnderWay(held.node.cluster);
  });
});
