import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ANNOTATIONS } from '../../../../contract/keys.ts';
import { decide } from '../../../../operator/checkpoint/decide.ts';
import type { Decision, Facts } from '../../../../operator/checkpoint/facts.ts';
import { STATUS } from '../../../../operator/checkpoint/status.ts';
import { checkpoint, ID, JOB, job, rival, STORAGE } from './samples.ts';

const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });

const jobs = fc
  .record({
    owners: fc.constantFrom([{ name: 'qwen', uid: 'uid-qwen' }], [], [{ name: 'x', uid: 'y' }]),
    declared: fc.constantFrom(undefined, 'completed' as const, 'failed' as const),
    state: fc.constantFrom('active' as const, 'complete' as const, 'failed' as const),
    isDeleting: fc.boolean(),
  })
  .map(job);
const rivals = fc.array(fc.record({ hasClaimed: fc.boolean(), isDeleting: fc.boolean() }).map(rival), { maxLength: 2 });
const known: fc.Arbitrary<Required<Facts>> = fc.record({
  rivals,
  job: fc.record({ job: maybe(jobs), isLive: fc.boolean() }),
  lease: fc.record({ isActive: fc.boolean() }),
  storage: fc.constantFrom(STORAGE, { result: 'not-ready' as const, problem: 'none' }),
  artifact: fc.constantFrom<NonNullable<Facts['artifact']>>(
    { result: 'complete' },
    { result: 'absent' },
    { result: 'broken', problem: 'p' },
    { result: 'unknown', why: 'w' },
  ),
  word: fc.record({ text: maybe(fc.string()), isFinal: fc.boolean() }),
});
const someFacts = known.chain((all) =>
  fc
    .subarray(['lease', 'storage', 'artifact', 'word'] as const)
    .map(
      (left): Facts => Object.fromEntries(Object.entries(all).filter(([key]) => !left.includes(key as never))) as never,
    ),
);
const text = fc.constantFrom('', ID, 'other-id', 'tmp', '../x', 'a'.repeat(64), ' ');
const checkpoints = fc
  .record({
    status: maybe(
      fc.record(
        {
          phase: fc.constantFrom('', 'Pending', 'Creating', 'Ready', 'Failed'),
          checkpointID: text,
          identityHash: text,
          jobName: fc.constantFrom('', JOB, 'something-else'),
          message: fc.string(),
        },
        { requiredKeys: [] },
      ),
    ),
    labels: fc.constantFrom({}, { 'nvidia.com/snapshot-checkpoint-id': ID }),
    annotations: fc.record(
      { [ANNOTATIONS.artifactVersion]: text, [ANNOTATIONS.retry]: fc.constantFrom('', 'yes') },
      { requiredKeys: [] },
    ),
    metadata: fc.constantFrom({}, { deletionTimestamp: '2026-11-28T12:00:00Z' }),
  })
  .map((parts) => checkpoint(parts as never));

/** What the looks find is `all`; a look at the Job finds it live. */
function decideToTheEnd(of: ReturnType<typeof checkpoint>, start: Facts, all: Required<Facts>): [Decision, number] {
  let facts = start;
  for (let looks = 0; looks < 10; looks += 1) {
    const decision = decide(of, facts);
    if (decision.do !== 'look') return [decision, looks];
    if (decision.at === 'job') facts = { ...facts, job: { ...all.job, isLive: true } };
    else facts = { ...facts, [decision.at]: all[decision.at], job: { ...facts.job, isLive: false } };
  }
  throw new Error('it looks for ever');
}

describe('decide', () => {
  it('has an answer for everything, after few looks', () => {
    fc.assert(
      fc.property(checkpoints, someFacts, known, (of, some, all) => {
        const [, looks] = decideToTheEnd(of, some, all);
        expect(looks).toBeLessThanOrEqual(4);
      }),
      { numRuns: 2_000 },
    );
  });

  it('leaves what is Ready or Failed as it is, unless another version or a try more is asked for', () => {
    fc.assert(
      fc.property(checkpoints, someFacts, (of, facts) => {
        const phase = of.status?.phase;
        fc.pre(phase === 'Ready' || phase === 'Failed');
        const decision = decide(of, facts);
        const isAsked = (of.metadata.annotations?.[ANNOTATIONS.retry]?.trim() ?? '') !== '' && phase === 'Failed';
        if (!isAsked) expect(['rest', 'restart']).toContain(decision.do);
        if (decision.do === 'restart' && !isAsked) expect(of.status?.jobName).toBeTruthy();
        expect(['fail', 'ready', 'make-job', 'claim', 'label', 'follow']).not.toContain(decision.do);
      }),
      { numRuns: 2_000 },
    );
  });

  it('comes to rest: what it decided is not decided again about the status that it led to', () => {
    fc.assert(
      fc.property(checkpoints, known, (of, all) => {
        const now = new Date('2026-11-28T12:00:00Z');
        const [decision] = decideToTheEnd(of, all, all);
        if (decision.do !== 'fail' && decision.do !== 'ready') return;
        const status = decision.do === 'fail' ? STATUS.failed(of, decision, now) : STATUS.ready(of, decision, now);
        const annotations = { ...of.metadata.annotations };
        delete annotations[ANNOTATIONS.retry];
        const ended = { ...of, metadata: { ...of.metadata, annotations }, status };
        const [next] = decideToTheEnd(ended, all, all);
        // A Job of another name is left for the next version.
        expect(['rest', 'restart']).toContain(next.do);
      }),
      { numRuns: 2_000 },
    );
  });
});
