import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Answer } from '../flow/grpc/client.ts';
import { workload } from './environment/pod.ts';
import { expectNothingUnderWay, HeldNode, named, type Place } from './grpc/held.ts';
import { type Plain, stepsSeen } from './grpc/node.ts';

const UNDONE: readonly Place[] = [
  { step: '' },
  { step: 'verify' },
  { step: 'prefetch' },
  { step: 'images' },
  { step: 'halt' },
  { step: 'halt', program: 'signal' },
];
const ENDS_CONTAINER: readonly Place[] = [
  { step: 'rootfs' },
  { step: 'rootfs', program: 'apply' },
  { step: 'criu-restore' },
  { step: 'criu-restore', program: 'criu' },
  { step: 'fill' },
  { step: 'fill', program: 'bulk-fill' },
  { step: 'adopt' },
  { step: 'adopt', program: 'arm' },
];
const TOO_LATE: readonly Place[] = [
  { step: 'continue' },
  { step: 'cuda-restore' },
  { step: 'cuda-unlock' },
  { step: 'confirm' },
  { step: 'release' },
];

let held: HeldNode;
let artifact: string;

beforeAll(async () => {
  held = await HeldNode.start();
  artifact = await held.node.makeArtifact({ command: workload('memory', '8'), control: false });
});
afterEach(() => held.letGo());
afterAll(async () => {
  expect(await held?.stop()).toEqual([]);
});

const hold = (target: Plain, place: Place) => held.hold(place, 'Restore', target, { checkpoint_id: artifact });

async function expectCancelled(end: Answer): Promise<void> {
  expect(end).toMatchObject({ done: true, result: 'error', metadata: { state: 'OPERATION_STATE_FAILED' } });
  const { code, info } = held.node.api.statusDetails(end.error);
  expect([code, info.reason]).toEqual([status.CANCELLED, 'CANCELLED']);
  await expectNothingUnderWay(held.node.cluster);
  const { readers } = await held.node.api.ask('GetCheckpoint', { checkpoint_id: artifact });
  expect(readers).toEqual([]);
}

async function expectRestored({ container }: Plain): Promise<void> {
  expect(await container.check()).toMatchObject({ check: 'ok' });
}

test('the steps of a restore are those in which one is cancelled here, and a watch shows each of them', async () => {
  const target = await held.node.runPlaceholder();
  const operation = await hold(target, { step: '' });
  const watch = held.node.api.watch('WatchOperation', { name: operation.name });
  await held.goOnTo('release', operation);
  await watch.until((message) => message.metadata.step === 'release');
  const tried = [...UNDONE, ...ENDS_CONTAINER, ...TOO_LATE].map(({ step }) => step).filter((step) => step !== '');
  expect(stepsSeen(watch)).toEqual([...new Set(tried)]);
  await held.letGo();
  expect(await watch.ended).toBeUndefined();
  await expectRestored(target);
  await target.pod.remove();
});

describe('a restore is cancelled, and all of it is undone:', () => {
  let target: Plain;
  beforeAll(async () => {
    target = await held.node.runPlaceholder();
  });

  test.each(named(UNDONE))('$where', async (place) => {
    const operation = await hold(target, place);
    expect(operation.metadata).toMatchObject({ step: place.step, cancel_effect: 'CANCEL_EFFECT_UNDONE' });
    await expectCancelled(await held.cancel(operation));
    // As it was: it is awake, and nothing was put into it.
    const { stdout } = await target.container.exec('sh', '-c', 'ls -d /data; grep State /proc/1/status');
    expect(stdout.trim()).toMatch(/^State:\s+S/);
  });

  test('the same container is restored into by the next request', async () => {
    await held.node.perform('Restore', target, { checkpoint_id: artifact });
    await expectRestored(target);
    await target.pod.remove();
  });
});

describe('a restore past its point of no return is cancelled, and its container ends:', () => {
  test.each(named(ENDS_CONTAINER))('$where', async (place) => {
    const target = await held.node.runPlaceholder();
    const operation = await hold(target, place);
    expect(operation.metadata).toMatchObject({ step: place.step, cancel_effect: 'CANCEL_EFFECT_ENDS_CONTAINER' });
    await expectCancelled(await held.cancel(operation));
    expect(await target.container.ended()).toMatchObject({ exit_code: 137 });
    // The container that takes its place is restored into.
    const container = await target.pod.runPlaceholder({ control: false, attempt: 1 });
    await held.node.perform('Restore', target, { checkpoint_id: artifact });
    await expectRestored({ ...target, container });
    await target.pod.remove();
  });
});

describe('a restore is cancelled too late, and succeeds:', () => {
  test.each(named(TOO_LATE))('$where', async (place) => {
    const target = await held.node.runPlaceholder();
    const operation = await hold(target, place);
    expect(operation.metadata).toMatchObject({ step: place.step, cancel_effect: 'CANCEL_EFFECT_TOO_LATE' });
    const end = await held.cancel(operation);
    expect(end).toMatchObject({ result: 'response', metadata: { state: 'OPERATION_STATE_SUCCEEDED' } });
    await expectRestored(target);
    await expectNothingUnderWay(held.node.cluster);
    await target.pod.remove();
  });
});
