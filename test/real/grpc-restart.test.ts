import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Answer } from '../flow/grpc/client.ts';
import { workload } from './environment/pod.ts';
import { expectNothingUnderWay, HeldNode, named, type Place } from './grpc/held.ts';
import type { ApiNode, Plain } from './grpc/node.ts';
import { freshName } from './scenario.ts';

/** The agent is killed in the midst of what callers asked for. */

let held: HeldNode;
let node: ApiNode;
let artifact: string;

beforeAll(async () => {
  held = await HeldNode.start();
  node = held.node;
  artifact = await node.makeArtifact({ command: workload('memory', '8') });
});
afterEach(() => held.letGo());
afterAll(async () => {
  expect(await held?.stop()).toEqual([]);
});

/** What a request says besides its target. */
type Ids = { readonly request_id: string; readonly checkpoint_id: string; readonly wait_seconds?: number };
const idsFor = (checkpoint_id: string): Ids => ({ request_id: freshName('request'), checkpoint_id });

/**
 * Kills the agent where the operation stands and starts it again. Whatever the next one is asked, it answers with the same operation:
 * that it is over, how, and all that was known of it.
 */
async function survived(kind: 'Checkpoint' | 'Restore', on: Plain, { ids, place }: { ids: Ids; place: Place }) {
  const operation = await held.hold(place, kind, on, ids);
  const { name } = operation;
  const watch = node.api.watch('WatchOperation', { name });
  await watch.until(() => true);
  await held.killAndStart();
  expect((await watch.ended)?.code).toBe(status.UNAVAILABLE);

  const now = await node.api.ask('GetOperation', { name });
  expect(now.done).toBe(true);
  const { revision } = watch.seen.at(-1).metadata;
  // A number of the earlier run, whether it is higher or lower by chance, does not keep anybody from seeing the end.
  for (const after_revision of [0, 1, revision]) {
    const again = node.api.watch('WatchOperation', { name, after_revision });
    expect(await again.ended).toBeUndefined();
    expect(again.seen).toEqual([now]);
  }
  expect(await node.begin(kind, on, ids)).toEqual(now);
  const { operations } = await node.api.ask('ListOperations', { states: [now.metadata.state] });
  expect(operations).toContainEqual(now);
  const kept = ['kind', 'origin', 'request_id', 'trace_id', 'target', 'checkpoint_id', 'version', 'create_time'];
  for (const field of kept) expect([field, now.metadata[field]]).toEqual([field, operation.metadata[field]]);
  expect(now.metadata.end_time).not.toBeNull();
  await expectNothingUnderWay(node.cluster);
  return now;
}

/** `step`: the last one that the journal had. What the operation was held before was not written down yet. */
function expectFailed(operation: Answer, [state, code, reason]: readonly [string, status, string], step: string): void {
  expect(operation.metadata).toMatchObject({ state: `OPERATION_STATE_${state}`, step });
  const error = node.api.statusDetails(operation.error);
  expect(error).toMatchObject({ code, info: { reason } });
  expect(error.message).toContain('the agent ended in the middle of it');
}
const INTERRUPTED = ['FAILED', status.CANCELLED, 'CANCELLED'] as const;
const UNKNOWN = ['UNKNOWN', status.UNKNOWN, 'OUTCOME_UNKNOWN'] as const;

async function expectWhole({ container }: Pick<Plain, 'container'>): Promise<void> {
  expect(await container.check()).toMatchObject({ check: 'ok' });
}

describe('the agent is killed in a checkpoint', () => {
  let source: Plain;
  beforeAll(async () => {
    source = await node.runPlain({ command: workload('memory', '8') });
  });
  afterAll(() => source.pod.remove());

  const places: readonly Place[] = [
    { step: 'inspect' },
    { step: 'criu-dump', program: 'criu' },
    { step: 'criu-dump', program: 'capture' },
    { step: 'publish' },
  ];
  test.each(named(places))('$where: that is known, and the workload runs on', async (place) => {
    const ids = idsFor(freshName('killed'));
    const now = await survived('Checkpoint', source, { ids, place });
    const before: Record<string, string> = { inspect: '', publish: 'finalize' };
    expectFailed(now, INTERRUPTED, before[place.step] ?? place.step);
    await expectWhole(source);
    const { checkpoint_id } = ids;
    const { response } = await node.perform('Checkpoint', source, { checkpoint_id });
    expect(response).toEqual({ checkpoint_id, version: '1', adopted: false });
  });

  test('when its artifact was there: the next request finds it', async () => {
    const ids = idsFor(freshName('killed'));
    const now = await survived('Checkpoint', source, { ids, place: { step: 'release' } });
    expectFailed(now, INTERRUPTED, 'announce');
    const { checkpoint_id } = ids;
    const { response } = await node.perform('Checkpoint', source, { checkpoint_id });
    expect(response).toEqual({ checkpoint_id, version: '1', adopted: true });
  });

  test('that ended its container: it is brought to its end', async () => {
    const stopped = await node.runPlain({ command: workload('memory', '8') });
    const ids = { ...idsFor(freshName('killed')), after: 'AFTER_CHECKPOINT_STOP' };
    const place = { step: 'finalize', program: 'bulk-write' };
    const now = await survived('Checkpoint', stopped, { ids, place });
    expect(node.requireSuccess(now).metadata.state).toBe('OPERATION_STATE_SUCCEEDED');
    await stopped.pod.remove();
    const target = await node.runPlaceholder();
    await node.perform('Restore', target, { checkpoint_id: ids.checkpoint_id });
    await expectWhole(target);
    await target.pod.remove();
  });
});

describe('the agent is killed in a restore', () => {
  const unchanged: readonly Place[] = [{ step: 'images' }, { step: 'halt', program: 'signal' }, { step: 'rootfs' }];
  test.each(named(unchanged))('$where, when nothing was changed: its container is as it was', async (place) => {
    const target = await node.runPlaceholder();
    const now = await survived('Restore', target, { ids: idsFor(artifact), place });
    expectFailed(now, INTERRUPTED, place.step === 'images' ? 'prefetch' : 'halt');
    expect((await target.container.exec('grep', 'State', '/proc/1/status')).stdout).toMatch(/State:\s+S/);
    await node.perform('Restore', target, { checkpoint_id: artifact });
    await expectWhole(target);
    await target.pod.remove();
  });

  const past: readonly Place[] = [
    { step: 'rootfs', program: 'apply' },
    { step: 'criu-restore', program: 'criu' },
    { step: 'adopt' },
  ];
  test.each(named(past))('$where, past its point of no return: its container ends', async (place) => {
    const target = await node.runPlaceholder();
    const now = await survived('Restore', target, { ids: idsFor(artifact), place });
    expectFailed(now, UNKNOWN, place.step === 'adopt' ? 'fill' : place.step);
    expect(await target.container.ended()).toMatchObject({ exit_code: 137 });
    const container = await target.pod.runPlaceholder({ control: false, attempt: 1 });
    await node.perform('Restore', target, { checkpoint_id: artifact });
    await expectWhole({ container });
    await target.pod.remove();
  });

  test('when the restored process ran: it is brought to its end', async () => {
    const target = await node.runPlaceholder();
    const now = await survived('Restore', target, { ids: idsFor(artifact), place: { step: 'release' } });
    expect(node.requireSuccess(now).metadata.state).toBe('OPERATION_STATE_SUCCEEDED');
    await expectWhole(target);
    await target.pod.remove();
  });
});
