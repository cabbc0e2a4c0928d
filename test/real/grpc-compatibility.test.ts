import { readdirSync } from 'node:fs';
import { status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Answer, failureOf } from '../flow/grpc/client.ts';
import { IMAGES } from './environment/images.ts';
import { workload } from './environment/pod.ts';
import { ApiNode, type Plain } from './grpc/node.ts';
import { having, IO_URING, PROJECTED, TRACED } from './unfit.ts';

let node: ApiNode;
beforeAll(async () => {
  node = await ApiNode.start();
});
afterAll(async () => {
  expect(await node?.stop()).toEqual([]);
});

type Check = { readonly checkpoint: object } | { readonly restore: { readonly checkpoint_id: string } };

const check = ({ target }: Pick<Plain, 'target'>, wanted: Check): Promise<Answer> =>
  node.api.ask('CheckCompatibility', { target, ...wanted });

/** Everything that lies on the volume. */
const volume = () => readdirSync(node.cluster.volume.hostPath, { recursive: true }).toSorted();

/** All that is in the way, at once: each with its code, both values and advice; asked again, it is the same. */
async function mismatches(on: Plain, wanted: Check): Promise<Answer[]> {
  const before = [volume(), await node.api.ask('ListOperations'), await on.container.pid()];
  const answer = await check(on, wanted);
  expect(answer.compatible).toBe(false);
  for (const mismatch of answer.mismatches)
    expect(mismatch).toEqual({
      code: expect.stringMatching(/^[A-Z_]+$/),
      message: expect.stringMatching(/./),
      found: expect.stringMatching(/./),
      wanted: expect.stringMatching(/./),
      advice: expect.stringMatching(/\.$/),
    });
  expect(await check(on, wanted)).toEqual(answer);
  expect([volume(), await node.api.ask('ListOperations'), await on.container.pid()]).toEqual(before);
  return answer.mismatches;
}

const codes = (reasons: readonly Answer[]) => [...new Set(reasons.map(({ code }) => code))].toSorted();

/** The operation itself is refused for just the same. */
function expectRefused(end: Answer, reason: string, reasons: readonly Answer[]): void {
  expect(end).toMatchObject({ done: true, result: 'error', metadata: { state: 'OPERATION_STATE_REFUSED' } });
  const { code, info, violations } = node.api.statusDetails(end.error);
  expect(code).toBe(status.FAILED_PRECONDITION);
  expect(info).toMatchObject({ reason, metadata: { retryable: 'false' } });
  expect(info.metadata).not.toHaveProperty('reasonsOmitted');
  const { namespace, pod, container } = end.metadata.target;
  expect(violations).toEqual(
    reasons.map(({ code: type, message, found, wanted, advice }) => ({
      type,
      subject: `${namespace}/${pod}/${container}`,
      description: `${message}; found ${found}; wanted ${wanted}. ${advice}`,
    })),
  );
}

describe('a checkpoint', () => {
  test('is told all that is in its way, and refused for it; the workload runs on', async () => {
    const command = having([IO_URING, TRACED, PROJECTED].join('\n'));
    const source = await node.runPlain({ command, pod: { sharePid: true } });
    const reasons = await mismatches(source, { checkpoint: {} });
    expect(codes(reasons)).toEqual(['IO_URING', 'PROJECTED_FILE_OPEN', 'PTRACED', 'SHARED_PID_NAMESPACE']);
    const { name } = await node.begin('Checkpoint', source);
    expectRefused(await node.end(name), 'CHECKPOINT_REFUSED', reasons);
    expect(await source.container.check()).toMatchObject({ check: 'ok' });
    expect(volume()).toEqual([]);
    await source.pod.remove();
  });

  test('of a container with nothing in its way is compatible, and succeeds', async () => {
    const source = await node.runPlain({ command: workload('memory', '2') });
    expect(await check(source, { checkpoint: {} })).toEqual({ compatible: true, mismatches: [], not_checked: [] });
    expect(volume()).toEqual([]);
    await node.perform('Checkpoint', source);
    await source.pod.remove();
  });
});

describe('a restore', () => {
  let artifact: string;
  const data = () => ({ container_path: '/mnt/data', host_path: node.cluster.volume.hostPath });
  beforeAll(async () => {
    artifact = await node.makeArtifact({ command: workload('memory', '32'), mounts: [data()] });
  });

  test('is told all that is in its way, and refused for it, however often; the placeholder waits on', async () => {
    const target = await node.runPlaceholder({
      image: IMAGES.workload,
      command: ['sleep', 'infinity'],
      ...{ tty: true, stdin: true },
      memoryLimitBytes: 24 << 20,
      addCapabilities: ['SYS_PTRACE'],
      pod: { hostNetwork: true },
    });
    const wanted = { restore: { checkpoint_id: artifact } };
    const reasons = await mismatches(target, wanted);
    const all = ['IMAGE', 'MEMORY_LIMIT', 'MOUNTS_MISSING', 'NETWORK', 'TARGET_CAN_TRACE', 'TERMINAL'];
    expect(codes(reasons)).toEqual(all);
    for (let time = 1; time <= 2; time++) {
      const { name } = await node.begin('Restore', target, { checkpoint_id: artifact });
      expectRefused(await node.end(name), 'RESTORE_REFUSED', reasons);
      expect(await mismatches(target, wanted)).toEqual(reasons);
    }
    const { stdout } = await target.container.exec('sh', '-c', 'ls -d /data; grep State /proc/1/status');
    expect(stdout.trim()).toMatch(/^State:\s+S/);
    await target.pod.remove();
  });

  test('into a container that is like its source is compatible, and succeeds', async () => {
    const target = await node.runPlaceholder({ mounts: [data()] });
    const before = volume();
    expect(await check(target, { restore: { checkpoint_id: artifact } })).toEqual({
      compatible: true,
      mismatches: [],
      not_checked: [],
    });
    expect(volume()).toEqual(before);
    await node.perform('Restore', target, { checkpoint_id: artifact });
    expect(await target.container.check()).toMatchObject({ check: 'ok' });
    await target.pod.remove();
  });
});

test.each([
  ['a container that does not run here', { target: { container_id: 'f' }, checkpoint: {} }, 'CONTAINER_NOT_FOUND'],
  ['an artifact that is not there', { restore: { checkpoint_id: 'missing' } }, 'ARTIFACT_NOT_FOUND'],
  ['an id that is none', { restore: { checkpoint_id: '../x' } }, 'REQUEST_INVALID'],
  ['nothing', {}, 'REQUEST_INVALID'],
])('the check of %s is an error', async (_, request, reason) => {
  const { target, pod } = await node.runPlaceholder();
  const error = await failureOf(node.api.ask('CheckCompatibility', { target, ...request }));
  expect(node.api.details(error).info.reason).toBe(reason);
  await pod.remove();
});
