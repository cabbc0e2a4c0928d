import { describe, expect, it } from 'vitest';
import type { OperationView } from '../../../agent/operations/operation.ts';
import { newRegistry } from '../../../agent/operations/registry.ts';

/** A registry with one operation, at a time that a test moves on. */
function registryWithOne() {
  let at = 1_000;
  const registry = newRegistry(() => at);
  const handle = registry.open({
    ...{ id: 'op', requestId: 'request', fingerprint: 'print', kind: 'checkpoint', origin: 'grpc', traceId: 'trace' },
    target: { namespace: 'team', pod: 'worker', podUid: 'uid', container: 'main', containerId: 'c' },
    ...{ checkpointId: 'ckpt', version: '1' },
  });
  const changes: OperationView[] = [];
  registry.onChange(({ view }) => changes.push(view));
  const pass = (ms: number) => {
    at += ms;
  };
  return { registry, handle, changes, pass };
}
const done = { result: 'succeeded', timings: [], figures: {} } as const;

async function watched(registry: ReturnType<typeof newRegistry>, afterRevision: number): Promise<OperationView[]> {
  const seen: OperationView[] = [];
  for await (const view of registry.watch('op', afterRevision, new AbortController().signal)) seen.push(view);
  return seen;
}

describe('the progress of a step', () => {
  it('never shrinks, and never passes its total', () => {
    const { handle, changes, pass } = registryWithOne();
    handle.step('dump', 'undone');
    for (const bytes of [50, 30, 90, 120]) {
      handle.progress(bytes, 100);
      pass(1_000);
    }
    expect(changes.slice(1).map(({ progress }) => [progress.bytes, progress.totalBytes])).toEqual([
      [50, 100],
      [50, 100],
      [90, 100],
      [120, 120],
    ]);
    expect(changes.at(-1)?.progress.bytesPerSecond).toBe(40);
  });

  it('is told five times in a second at most, and once more when the step ends', () => {
    const { handle, changes, pass } = registryWithOne();
    handle.step('dump', 'undone');
    for (let bytes = 1; bytes <= 20; bytes++) {
      handle.progress(bytes, 0);
      pass(50);
    }
    expect(changes.slice(1).map(({ progress }) => progress.bytes)).toEqual([1, 5, 9, 13, 17]);
    handle.stepEnded({ step: 'dump', seconds: 1 });
    expect(handle.view.progress).toMatchObject({ bytes: 20, totalBytes: 0 });
  });

  it('is told at once in the next step, where it begins anew', () => {
    const { handle, pass } = registryWithOne();
    handle.step('dump', 'undone');
    handle.progress(70, 100);
    pass(1);
    handle.step('finalize', 'undone');
    expect(handle.view.progress).toEqual({ bytes: 0, totalBytes: 0, bytesPerSecond: 0 });
    handle.progress(5, 100);
    expect(handle.view.progress.bytes).toBe(5);
  });
});

describe('a watch of an operation that is over', () => {
  it.each([0, 1, 2, 3])('shows its end to who saw revision %i', async (afterRevision) => {
    const { registry, handle } = registryWithOne();
    handle.started();
    handle.ended(done);
    expect(handle.view.revision).toBe(3);
    expect(await watched(registry, afterRevision)).toEqual([handle.view]);
  });
});

it('forgets of what has ended the oldest of whoever has the most, and nothing that goes on', () => {
  const registry = newRegistry();
  const add = (id: string, namespace: string) =>
    registry.open({
      ...{ id, requestId: id, caller: namespace, fingerprint: '', kind: 'checkpoint', origin: 'grpc', traceId: '' },
      target: { namespace, pod: 'worker', podUid: 'uid', container: 'main', containerId: 'c' },
      ...{ checkpointId: 'ckpt', version: '1' },
    });
  add('goes-on', 'loud');
  for (let n = 0; n < 150; n += 1) add(`mine-${n}`, 'quiet').ended(done);
  for (let n = 0; n < 3_000; n += 1) add(`loud-${n}`, 'loud').ended(done);
  const known = (prefix: string) => registry.list().filter(({ id }) => id.startsWith(prefix)).length;
  expect([known('mine-'), known('goes-on')]).toEqual([150, 1]);
  // The last one had not ended yet when the oldest were forgotten.
  expect(known('loud-')).toBe(1_851);
  expect(registry.ofRequest('mine-0', { name: 'quiet', namespaces: new Set(['quiet']) })).toBeDefined();
});

it('an operation keeps the time at which an earlier run of the agent accepted it', () => {
  const { registry, handle } = registryWithOne();
  const { id: _id, createdAtMs: _at, ...rest } = handle.view;
  const again = registry.open({ ...rest, id: 'again', fingerprint: '', createdAtMs: 7 });
  expect([handle.view.createdAtMs, again.view.createdAtMs]).toEqual([1_000, 7]);
});
