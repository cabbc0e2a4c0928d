import { pino } from 'pino';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { SnapshotError } from '../../../agent/errors.ts';
import { adopted } from '../../../agent/operations/adoption.ts';
import type { Attempt } from '../../../agent/operations/attempt.ts';
import type { AgentContext, OperationRequest } from '../../../agent/operations/context.ts';
import type { Claim } from '../../../agent/operations/reporter.ts';
import type { Target } from '../../../agent/operations/target.ts';
import type { CheckpointWanted } from '../../../agent/plan/decide.ts';
import { KEYS, makeArtifact, makeVolume } from '../store/volume.ts';

/** An artifact that is complete already, and a Job that has to be told so before its worker is released. */
let volume: Awaited<ReturnType<typeof makeVolume>>;
let released: boolean;
beforeEach(async () => {
  volume = await makeVolume();
  released = false;
  await makeArtifact(volume);
});
afterEach(() => volume.remove());

const cancel = () => new AbortController();

function adopt(declareComplete: Claim['declareComplete'], cancelled = cancel()) {
  const native = {
    look: () => Promise.resolve({ dir: true }),
    put: () => {
      released = true;
      return Promise.resolve();
    },
  };
  const context = { native, keys: KEYS, log: pino({ level: 'silent' }) } as unknown as AgentContext;
  const wanted = { kind: 'checkpoint', checkpointId: 'ckpt', version: '1', existing: 'adopt', ofJob: true };
  const request = { wanted, pod: { namespace: 'team' }, signal: cancel().signal };
  const running = { id: 'c', env: ['DYN_SNAPSHOT_CONTROL_DIR=/snapshot-control'] };
  const main = { id: { pid: 1, start: 1 } };
  const target = { volume, running, main, timings: [] } as unknown as Target;
  const attempt = { signal: cancelled.signal, step: () => Promise.resolve(), timing: () => undefined };
  const claim = { isCompleted: false, lost: cancel().signal, declareComplete } as unknown as Claim;
  return adopted(context, request as unknown as OperationRequest<CheckpointWanted>, {
    ...{ target, claim },
    attempt: attempt as unknown as Attempt,
  });
}

it('is declared, and its worker is released after that', async () => {
  const outcome = await adopt(() => {
    expect(released).toBe(false);
    return Promise.resolve();
  });
  expect(outcome?.failure).toBeUndefined();
  expect(outcome?.result).toBe('adopted');
  expect(outcome?.timings.map(({ step }) => step)).toEqual(['adopt', 'release', 'unaccounted']);
  expect(released).toBe(true);
});

it('is given up when the operation is cancelled while the API does not answer', async () => {
  const cancelled = cancel();
  const declare = (signal: AbortSignal) =>
    new Promise<void>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error));
      cancelled.abort();
    });
  const outcome = await adopt(declare, cancelled);
  expect(outcome).toMatchObject({ result: 'failed', failure: { code: 'CANCELLED' }, failedStep: 'adopt' });
  expect(released).toBe(false);
});

it.each(['KUBERNETES_REFUSED', 'JOB_UNDECLARED', 'JOB_FAILED'] as const)(
  'does not release the worker of a Job that cannot be told: %s',
  async (code) => {
    const outcome = await adopt(() => Promise.reject(new SnapshotError(code, 'no')));
    expect(outcome).toMatchObject({ result: 'failed', failure: { code }, failedStep: 'adopt' });
    expect(released).toBe(false);
  },
);
