import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type Answer, connectTo } from '../flow/grpc/client.ts';
import { workload } from './environment/pod.ts';
import { type Breaking, breakingSocket } from './grpc/breaking.ts';
import { ApiNode, type Plain, stepsOf } from './grpc/node.ts';
import { giveAgents } from './grpc/slow.ts';

const STEPS = {
  Checkpoint: [
    'inspect',
    'preflight',
    'stage',
    'quiesced',
    'cuda-lock',
    'cuda-checkpoint',
    'criu-dump',
    'resume',
    'finalize',
    'publish',
    'announce',
  ],
  Restore: [
    'verify',
    'prefetch',
    'images',
    'halt',
    'rootfs',
    'criu-restore',
    'fill',
    'adopt',
    'continue',
    'cuda-restore',
    'cuda-unlock',
    'confirm',
  ],
};
const STATES = ['QUEUED', 'WAITING', 'RUNNING', 'SUCCEEDED'].map((state) => `OPERATION_STATE_${state}`);

let node: ApiNode;
let breaking: Breaking;

beforeAll(async () => {
  node = await ApiNode.start();
  breaking = await breakingSocket(join(node.cluster.directory, 'breaking.sock'), node.agent.apiSocket);
});
afterEach(() => giveAgents(node.cluster, 1));
afterAll(async () => {
  breaking?.close();
  expect(await node?.stop()).toEqual([]);
});

/**
 * Performs an operation on an agent that is given little time, and watches it. When bytes of this step are first told, the connection
 * breaks; another one goes on after what was seen last.
 */
async function followed(
  kind: 'Checkpoint' | 'Restore',
  on: Plain,
  { breaksIn, ...more }: { readonly breaksIn: string; readonly checkpoint_id?: string },
) {
  giveAgents(node.cluster, 0.1);
  const { name } = await node.begin(kind, on, more);
  const client = connectTo(`unix:${breaking.path}`, undefined, { 'grpc.use_local_subchannel_pool': 1 });
  const first = client.watch('WatchOperation', { name });
  const last = await first.until(({ metadata }) => metadata.step === breaksIn && metadata.progress.bytes > 0);
  breaking.cut();
  expect((await first.ended)?.code).toBe(status.UNAVAILABLE);
  client.close();

  const { revision } = first.seen.at(-1).metadata;
  const second = node.api.watch('WatchOperation', { name, after_revision: revision });
  expect(await second.ended).toBeUndefined();
  expect(second.seen[0].metadata.revision).toBeGreaterThan(revision);
  return { last, seen: [...first.seen, ...second.seen], end: node.requireSuccess(second.seen.at(-1)) };
}

const figuresOf = (seen: readonly Answer[], step: string) =>
  seen.filter(({ metadata }) => metadata.step === step).map(({ metadata }) => metadata.progress);

/** What holds of every stream: nothing comes twice, nothing goes back. */
function expectInOrder(seen: readonly Answer[], kind: 'Checkpoint' | 'Restore'): void {
  const revisions = seen.map(({ metadata }) => metadata.revision);
  expect(revisions).toEqual([...new Set(revisions)].toSorted((a, b) => a - b));
  const states = seen.map(({ metadata }) => STATES.indexOf(metadata.state));
  expect(states).toEqual(states.toSorted((a, b) => a - b));
  expect(states.at(-1)).toBe(STATES.length - 1);
  expect(seen.map(({ done }) => done)).toEqual(seen.map((_, index) => index === seen.length - 1));
  const order = [...STEPS[kind], 'release'];
  const steps = seen.map(({ metadata }) => order.indexOf(metadata.step)).filter((index) => index >= 0);
  expect(steps).toEqual(steps.toSorted((a, b) => a - b));
  for (const step of order) {
    const figures = figuresOf(seen, step);
    expect(figures).toEqual(figures.toSorted((a, b) => a.bytes - b.bytes));
    for (const { bytes, total_bytes: total } of figures) expect(bytes).toBeLessThanOrEqual(total);
  }
}

/** The times of the steps, from the first look on, are the wall time. */
function expectAccounted({ metadata }: Answer, kind: 'Checkpoint' | 'Restore'): void {
  const steps = ['resolve', 'pin', 'attach', ...STEPS[kind], 'release', 'unaccounted'];
  expect(stepsOf({ metadata })).toEqual(steps);
  const times: number[] = metadata.timings.map(({ seconds }: { seconds: number }) => seconds);
  const milliseconds = ({ seconds, nanos }: { seconds: number; nanos: number }) => seconds * 1000 + nanos / 1e6;
  const wall = (milliseconds(metadata.end_time) - milliseconds(metadata.start_time)) / 1000;
  const sum = times.slice(3).reduce((total, one) => total + one, 0);
  // What comes before the first step and after the last is not part of them: the journal, mostly.
  expect(sum).toBeLessThanOrEqual(wall + 0.01);
  expect(sum).toBeGreaterThan(wall / 2);
}

test('a running container that nothing asks for is checkpointed and restored, watched over broken connections', async () => {
  const MEBIBYTES = 200;
  const source = await node.runPlain({ command: workload('memory', `${MEBIBYTES}`) });
  const { last, seen, end } = await followed('Checkpoint', source, { breaksIn: 'criu-dump' });
  expect(seen[0].metadata).toMatchObject({ kind: 'OPERATION_KIND_CHECKPOINT', origin: 'OPERATION_ORIGIN_GRPC' });
  expectInOrder(seen, 'Checkpoint');
  expectAccounted(end, 'Checkpoint');
  expect(last.metadata.progress.bytes).toBeLessThan(last.metadata.progress.total_bytes);
  expect(last.metadata.progress.bytes_per_second).toBeGreaterThan(0);
  for (const step of ['criu-dump', 'finalize'])
    expect(figuresOf(seen, step).at(-1)?.bytes, step).toBeGreaterThan((MEBIBYTES << 20) / 2);
  expect(end.metadata.figures['bulkBytes']).toBeGreaterThan(MEBIBYTES << 20);
  expect(end.metadata).toMatchObject({ waiting_for: '', step: '', cancel_effect: 'CANCEL_EFFECT_TOO_LATE' });

  // It goes on, and what is restored is as it was then.
  const before = await source.container.check();
  expect(before).toMatchObject({ check: 'ok', mebibytes: MEBIBYTES });
  const target = await node.runPlaceholder();
  const { checkpoint_id } = end.response;
  const restore = await followed('Restore', target, { breaksIn: 'fill', checkpoint_id });
  expectInOrder(restore.seen, 'Restore');
  expectAccounted(restore.end, 'Restore');
  expect(figuresOf(restore.seen, 'fill').at(-1)?.bytes).toBeGreaterThan((MEBIBYTES << 20) / 2);
  expect(restore.end.metadata.figures['filledBytes']).toBe(end.metadata.figures['bulkBytes']);
  const after = await target.container.check();
  expect(after).toMatchObject({ check: 'ok', digest: before['digest'], host: target.pod.name });
  await Promise.all([source.pod.remove(), target.pod.remove()]);
});
