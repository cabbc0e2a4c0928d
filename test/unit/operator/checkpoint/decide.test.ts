import { describe, expect, it } from 'vitest';
import { ANNOTATIONS } from '../../../../contract/keys.ts';
import { decide } from '../../../../operator/checkpoint/decide.ts';
import type { Decision, Facts } from '../../../../operator/checkpoint/facts.ts';
import {
  checkpoint,
  creating,
  facts,
  ID,
  inPhase,
  JOB,
  job,
  pending,
  RETRY,
  rival,
  STORAGE,
  withJob,
} from './samples.ts';

const said = { word: { text: undefined, isFinal: true } } as const;

describe('a Job that was made, by what its annotation and its state say', () => {
  it.each<[string, Facts, Partial<Decision> & { reason?: string; message?: string }]>([
    [
      'failed, Complete',
      withJob({ declared: 'failed', state: 'complete' }, said),
      { do: 'fail', reason: 'CheckpointVerificationFailed' },
    ],
    ['failed, running', withJob({ declared: 'failed' }, said), { do: 'fail', reason: 'JobFailed' }],
    ['failed, Failed', withJob({ declared: 'failed', state: 'failed' }, said), { do: 'fail', reason: 'JobFailed' }],
    [
      'completed, Complete, and the agent sees the artifact',
      withJob({ declared: 'completed', state: 'complete' }, { artifact: { result: 'complete' } }),
      { do: 'ready', verified: { result: 'complete' } },
    ],
    [
      'completed, Complete, and nobody can be asked',
      withJob({ declared: 'completed', state: 'complete' }, { artifact: { result: 'unknown', why: 'x' } }),
      { do: 'ready', verified: { result: 'unknown', why: 'x' } },
    ],
    [
      'completed, Complete, and the agent sees no artifact',
      withJob({ declared: 'completed', state: 'complete' }, { artifact: { result: 'absent' } }),
      { do: 'fail', reason: 'CheckpointVerificationFailed' },
    ],
    [
      'completed, Complete, and the artifact is broken',
      withJob({ declared: 'completed', state: 'complete' }, { artifact: { result: 'broken', problem: 'torn' } }),
      { do: 'fail', reason: 'CheckpointVerificationFailed', message: 'the artifact cannot be used: torn' },
    ],
    ['completed, not yet Complete', withJob({ declared: 'completed' }), { do: 'follow' }],
    ['none, running', withJob(), { do: 'follow' }],
    [
      'none, Complete, lease active',
      withJob({ state: 'complete' }, { lease: { isActive: true } }),
      { do: 'wait', for: 'lease' },
    ],
    [
      'none, Complete, no lease',
      facts({ job: { job: job({ state: 'complete' }), isLive: true }, lease: { isActive: false } }),
      {
        do: 'fail',
        reason: 'CheckpointNotConfirmed',
        message: 'Checkpoint job completed without snapshot-agent completion confirmation',
      },
    ],
    [
      'none, Failed',
      withJob({ state: 'failed', failure: 'DeadlineExceeded: too long' }, said),
      { do: 'fail', reason: 'JobFailed', message: `checkpoint job ${JOB} failed: DeadlineExceeded: too long` },
    ],
    [
      'completed, Failed',
      withJob({ declared: 'completed', state: 'failed' }, said),
      { do: 'fail', reason: 'JobFailed' },
    ],
    [
      'gone',
      facts({ job: { job: undefined, isLive: true } }),
      { do: 'fail', reason: 'JobDeleted', message: 'checkpoint job was deleted' },
    ],
    [
      "gone, and somebody else's has its name",
      facts({ job: { job: job({ owners: [] }), isLive: true } }),
      { do: 'fail', reason: 'JobDeleted', message: `checkpoint job was deleted; Job ${JOB} is another one` },
    ],
  ])('%s', (_, known, expected) => {
    expect(decide(creating(), known)).toMatchObject(expected);
  });

  it.each<[string, Facts, string]>([
    ['the Job itself, before it says that it was deleted', facts(), 'job'],
    ['the lease, before the silence of the agent counts', withJob({ state: 'complete' }), 'lease'],
    [
      'the Job once more after the lease: it may have been said in between',
      withJob({ state: 'complete' }, { lease: { isActive: false } }),
      'job',
    ],
    ["the agent's Event of a failure", withJob({ state: 'failed' }), 'word'],
    ['the artifact, before it is Ready', withJob({ declared: 'completed', state: 'complete' }), 'artifact'],
  ])('looks at %s', (_, known, at) => {
    expect(decide(creating(), known)).toEqual({ do: 'look', at });
  });

  it('waits a moment for the Event, and says what it says', () => {
    const failed = (word: Facts['word']) => decide(creating(), withJob({ declared: 'failed' }, word ? { word } : {}));
    expect(failed({ text: undefined, isFinal: false })).toMatchObject({ do: 'wait', for: 'event' });
    expect(failed({ text: 'CRIU_FAILED: advice', isFinal: false })).toMatchObject({
      ...{ do: 'fail', reason: 'JobFailed', message: 'CRIU_FAILED: advice' },
    });
  });

  it('is followed to its end under its own name when another version is asked for meanwhile', () => {
    const next = inPhase('Creating', { jobName: JOB }, { [ANNOTATIONS.artifactVersion]: '2' });
    expect(decide(next, withJob())).toMatchObject({ do: 'follow', attempt: { jobName: JOB } });
  });
});

describe('a checkpoint without a Job', () => {
  it('takes its id, says it in its label, looks for storage, and has its Job made', () => {
    expect(decide(checkpoint(), facts())).toEqual({ do: 'claim', checkpointId: ID });
    const claimed = checkpoint({ status: { phase: 'Pending', checkpointID: ID, identityHash: ID } });
    expect(decide(claimed, facts())).toEqual({ do: 'label', checkpointId: ID });
    expect(decide(pending(), facts())).toEqual({ do: 'look', at: 'storage' });
    expect(decide(pending(), facts({ storage: STORAGE }))).toEqual({
      do: 'make-job',
      attempt: { checkpointId: ID, version: '1', jobName: JOB },
      storage: STORAGE,
    });
  });

  it.each([
    ['status.checkpointID', { status: { checkpointID: 'a', identityHash: 'b' }, labels: { x: 'c' } }, 'a'],
    [
      'status.identityHash',
      { status: { identityHash: 'b' }, labels: { 'nvidia.com/snapshot-checkpoint-id': 'c' } },
      'b',
    ],
    ['its label', { labels: { 'nvidia.com/snapshot-checkpoint-id': 'c' } }, 'c'],
    ['its identity', {}, ID],
  ] as const)('has the id of %s', (_, parts, checkpointId) => {
    expect(decide(checkpoint(parts as never), facts())).toEqual({ do: 'claim', checkpointId });
  });

  it('has the version of its annotation in the name of its Job', () => {
    const versioned = checkpoint({
      status: { phase: 'Pending', checkpointID: ID, identityHash: ID },
      labels: { 'nvidia.com/snapshot-checkpoint-id': ID },
      annotations: { [ANNOTATIONS.artifactVersion]: ' v2 ' },
    });
    expect(decide(versioned, facts({ storage: STORAGE }))).toMatchObject({
      attempt: { version: 'v2', jobName: `checkpoint-job-${ID}-v2` },
    });
  });

  it('waits for its storage, and says why', () => {
    expect(decide(pending(), facts({ storage: { result: 'not-ready', problem: 'no claim' } }))).toEqual({
      ...{ do: 'wait', for: 'storage', message: 'no claim' },
    });
  });

  it.each([
    ['InvalidCheckpointID', { labels: { 'nvidia.com/snapshot-checkpoint-id': '../up' } }, 'checkpoint ID "../up"'],
    ['InvalidCheckpointID', { status: { checkpointID: 'tmp' } }, 'checkpoint ID "tmp" is the reserved name'],
    ['InvalidArtifactVersion', { annotations: { [ANNOTATIONS.artifactVersion]: 'a/b' } }, 'artifact version "a/b"'],
  ] as const)('fails with %s', (reason, parts, message) => {
    expect(decide(checkpoint(parts as never), facts())).toMatchObject({
      ...{ do: 'fail', reason, message: expect.stringContaining(message) },
    });
  });
});

describe('two checkpoints with one id', () => {
  const duplicate = {
    do: 'fail',
    reason: 'DuplicateCheckpointID',
    message: `checkpoint ID ${ID} is already owned by other`,
  };

  it.each([
    ['the other has it, though younger', pending, [], undefined],
    ['the other is older, and has it too', pending, [rival({ hasClaimed: true })], duplicate],
    ['the other is older, but does not have it yet', pending, [rival()], undefined],
    ['neither has it, and the other is older', checkpoint, [rival()], duplicate],
    [
      'neither has it, and the other is younger',
      checkpoint,
      [rival({ creationTimestamp: '2026-11-28T11:00:00Z' })],
      undefined,
    ],
    [
      'the other has it, though it is younger',
      checkpoint,
      [rival({ creationTimestamp: '2026-11-28T11:00:00Z', hasClaimed: true })],
      duplicate,
    ],
    [
      'both came in the same second, and the name decides',
      checkpoint,
      [rival({ creationTimestamp: '2026-11-28T10:00:00Z' })],
      duplicate,
    ],
  ] as const)('are told apart when %s', (_, make, rivals, expected) => {
    const decision = decide(make(), facts({ rivals, storage: STORAGE }));
    if (expected === undefined) expect(decision.do).not.toBe('fail');
    else expect(decision).toEqual(expected);
  });

  it('wait for one that is being deleted', () => {
    expect(decide(checkpoint(), facts({ rivals: [rival({ isDeleting: true, hasClaimed: true })] }))).toMatchObject({
      ...{ do: 'wait', for: 'deletion', message: expect.stringContaining('still owned by other') },
    });
  });

  it('leave each other alone once they have ended', () => {
    const rivals = [rival({ hasClaimed: true })];
    expect(decide(inPhase('Ready', { jobName: JOB }), facts({ rivals })).do).toBe('rest');
  });
});

describe('a checkpoint that has ended', () => {
  it.each(['Ready', 'Failed'])('stays %s, whatever became of its Job', (phase) => {
    for (const known of [
      facts(),
      withJob({ state: 'failed', declared: 'failed' }),
      facts({ job: { job: undefined, isLive: true } }),
    ])
      expect(decide(inPhase(phase, { jobName: JOB }), known)).toMatchObject({ do: 'rest' });
  });

  it.each(['Ready', 'Failed'])('begins anew from %s for another version', (phase) => {
    const next = inPhase(phase, { jobName: JOB }, { [ANNOTATIONS.artifactVersion]: '2' });
    expect(decide(next, facts())).toMatchObject({ do: 'restart' });
  });

  it.each(['InvalidArtifactVersion', 'InvalidCheckpointID'])(
    'begins anew once what failed as %s is corrected',
    (reason) => {
      const conditions = [{ type: 'Ready', status: 'False', reason, message: 'wrong', lastTransitionTime: '' }];
      const status = { phase: 'Failed', conditions };
      const wrong = { [ANNOTATIONS.artifactVersion]: 'a b' };
      expect(decide(checkpoint({ status, annotations: wrong }), facts())).toMatchObject({ do: 'rest' });
      expect(decide(checkpoint({ status }), facts())).toMatchObject({ do: 'restart' });
      const other = [{ ...conditions[0], reason: 'BackendNotSupported' }];
      expect(decide(checkpoint({ status: { phase: 'Failed', conditions: other } }), facts()).do).toBe('rest');
    },
  );

  it('tries once more when it is asked to: without the Job of the last try', () => {
    const failed = inPhase('Failed', { jobName: JOB }, RETRY);
    expect(decide(failed, facts())).toEqual({ do: 'look', at: 'job' });
    const live = (of: Parameters<typeof job>[0]) => facts({ job: { job: job(of), isLive: true } });
    expect(decide(failed, live({}))).toMatchObject({ do: 'delete-job', job: { uid: 'uid-job' } });
    expect(decide(failed, live({ isDeleting: true }))).toMatchObject({ do: 'wait', for: 'deletion' });
    expect(decide(failed, live({ owners: [] }))).toMatchObject({ do: 'restart' });
    expect(decide(failed, facts({ job: { job: undefined, isLive: true } }))).toMatchObject({ do: 'restart' });
  });

  it('is not tried again while it is Ready, and forgets the wish while it is at work', () => {
    expect(decide(inPhase('Ready', { jobName: JOB }, RETRY), facts())).toMatchObject({ do: 'rest' });
    expect(decide(inPhase('Pending', {}, RETRY), facts())).toEqual({ do: 'forget-retry' });
    expect(decide(inPhase('Creating', { jobName: JOB }, RETRY), facts())).toEqual({ do: 'forget-retry' });
  });

  it('is left alone while it is being deleted', () => {
    const deleted = checkpoint({ metadata: { deletionTimestamp: '2026-11-28T12:00:00Z' } });
    expect(decide(deleted, facts())).toMatchObject({ do: 'rest' });
  });
});
