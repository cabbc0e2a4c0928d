import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ERRORS, type ErrorCode, SnapshotError } from '../../../agent/errors.ts';
import { beginAttempt, outcomeOf } from '../../../agent/operations/attempt.ts';
import type { AgentContext, OperationRequest } from '../../../agent/operations/context.ts';
import { type Journal, openJournal } from '../../../agent/operations/journal.ts';
import { newRegistry } from '../../../agent/operations/registry.ts';
import type { Claim } from '../../../agent/operations/reporter.ts';
import type { Target } from '../../../agent/operations/target.ts';
import type { RestoreWanted } from '../../../agent/plan/decide.ts';

let top: string;
let journal: Journal;
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'attempt-'));
  journal = await openJournal({ path: join(top, 'journal.jsonl'), bootId: 'boot' });
});
afterEach(async () => {
  await journal.close();
  await rm(top, { recursive: true, force: true });
});

const claim: Claim = {
  lost: new AbortController().signal,
  isCompleted: false,
  declareComplete: () => Promise.resolve(),
  end: () => Promise.resolve(),
};

function attempt() {
  const request: OperationRequest<RestoreWanted> = {
    operationId: 'op',
    traceId: 'trace',
    pod: { uid: 'uid', namespace: 'team', name: 'worker', sandboxId: 's', labels: {}, annotations: {}, containers: [] },
    wanted: {
      kind: 'restore',
      container: { name: 'main', id: 'c', state: 'running', attempt: 0 },
      checkpointId: 'ckpt',
      version: '1',
      basePath: undefined,
    },
    isLastTry: false,
    signal: new AbortController().signal,
    fingerprint: '',
    begin: () => handle,
  };
  const handle = newRegistry().open({
    ...{ id: 'op', requestId: 'request', fingerprint: '', kind: 'restore', origin: 'annotation', traceId: 'trace' },
    target: { namespace: 'team', pod: 'worker', podUid: 'uid', container: 'main', containerId: 'c' },
    ...{ checkpointId: 'ckpt', version: '1' },
  });
  const target = { timings: [], running: { id: 'c' }, main: { id: { pid: 10, start: 500 } } } as unknown as Target;
  return beginAttempt({ journal } as unknown as AgentContext, request, target, claim);
}
const failure = (code: ErrorCode) =>
  outcomeOf({ failure: new SnapshotError(code, 'no'), failedStep: 'fill', timings: [] }, {});

describe('an attempt in the journal', () => {
  it('names the container’s process, and how far it came', async () => {
    const one = attempt();
    await one.note('started');
    await one.step('verify', 'undone');
    expect(journal.openOperations()).toMatchObject([
      {
        operationId: 'op',
        kind: 'restore',
        containerKey: { containerId: 'c', pid: 10, startTime: 500 },
        pod: { namespace: 'team', name: 'worker', uid: 'uid' },
        container: 'main',
        state: 'step',
        step: 'verify',
      },
    ]);
  });

  it('says of what comes between two steps in which one that was', async () => {
    const one = attempt();
    await one.note('started');
    await one.step('rootfs', 'ends-container');
    await one.note('point-of-no-return');
    expect(journal.openOperations()).toMatchObject([{ state: 'point-of-no-return', step: 'rootfs' }]);
  });

  it('ends well with its result and what it is told besides', async () => {
    await attempt().end(outcomeOf({ failure: undefined, failedStep: undefined, timings: [] }, {}), { artifact: 'a' });
    expect(journal.outcomeOf('c')).toMatchObject({
      state: 'succeeded',
      details: { result: 'succeeded', code: '', retry: false, artifact: 'a' },
    });
  });

  it('may be made again after a failure that may pass', async () => {
    await attempt().end(failure('STORAGE_FAILED'));
    expect(journal.outcomeOf('c')).toMatchObject({ state: 'failed', details: { code: 'STORAGE_FAILED', retry: true } });
  });

  it('is never made again once the container was changed, whatever failed', async () => {
    const one = attempt();
    await one.note('point-of-no-return');
    await one.end(failure('STORAGE_FAILED'));
    expect(journal.outcomeOf('c')).toMatchObject({ state: 'failed', details: { retry: false } });
  });

  it('is a refusal where nothing was touched and the answer would be the same', async () => {
    await attempt().end(failure('RESTORE_REFUSED'));
    expect(journal.outcomeOf('c')).toMatchObject({ state: 'refused', details: { result: 'refused', retry: false } });
  });

  it('is no refusal once the container was changed, whatever was found', () => {
    const damaged = { failure: new SnapshotError('ARTIFACT_CORRUPT', 'a block'), failedStep: 'fill', timings: [] };
    const results = [false, true].map((isTouched) => outcomeOf({ ...damaged, isTouched }, {}).result);
    expect(results).toEqual(['refused', 'failed']);
  });

  it('is no refusal for any failure that may pass', () => {
    const passing = (Object.keys(ERRORS) as ErrorCode[]).filter((code) => ERRORS[code].retryable);
    for (const code of passing) expect(failure(code).result, code).toBe('failed');
  });
});
