import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { idProblem } from '../../../contract/ids.ts';
import {
  checkpointIdProblem,
  checkpointLocation,
  idCheckpointJobName,
  jobNameProblem,
  manualCheckpointId,
  podCheckpointJobName,
} from '../../../contract/names.ts';

describe('the name of a Job', () => {
  it('is that of its pod or its checkpoint', () => {
    expect(podCheckpointJobName('worker')).toBe('worker-checkpoint');
    expect(idCheckpointJobName('abc123', '2')).toBe('checkpoint-job-abc123-2');
  });

  it.each([
    ['worker-checkpoint', undefined],
    ['a'.repeat(63), undefined],
    ['a'.repeat(64), 'has 64 characters, at most 63 are allowed'],
    ['Worker', 'has characters other than a-z 0-9 - .'],
    ['worker-', 'has a part between its dots that does not begin and end with a letter or digit'],
    ['worker.-a', 'has a part between its dots that does not begin and end with a letter or digit'],
    ['a..b', 'has a part between its dots that does not begin and end with a letter or digit'],
  ])('%s: %s', (name, problem) => {
    expect(jobNameProblem(name)).toBe(problem);
  });

  it('is legal for every id and version, and another one for each', () => {
    const id = fc.stringMatching(/^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,62}$/).filter((text) => idProblem(text) === undefined);
    fc.assert(
      fc.property(id, id, id, (a, b, version) => {
        const [one, other] = [idCheckpointJobName(a, version), idCheckpointJobName(b, version)];
        expect(jobNameProblem(one)).toBeUndefined();
        expect(one === other).toBe(a === b);
      }),
    );
  });
});

describe('the id of a checkpoint', () => {
  it('is made of the time', () => {
    expect(manualCheckpointId(1_764_335_702_000_000_001n)).toBe('manual-snapshot-1764335702000000001');
    expect(checkpointIdProblem(manualCheckpointId(1_764_335_702_000_000_001n))).toBeUndefined();
  });

  it.each([
    ['tmp', 'is the reserved name "tmp"'],
    ['a/b', 'has characters other than A-Z a-z 0-9 . _ -'],
    ['a-', 'must begin and end with a letter or digit, as the value of a label does'],
    ['_a', 'must begin and end with a letter or digit, as the value of a label does'],
  ])('%s %s', (id, problem) => {
    expect(checkpointIdProblem(id)).toBe(problem);
  });
});

it('an artifact lies below its base path', () => {
  expect(checkpointLocation('/checkpoints/', 'a', '1')).toBe('/checkpoints/a/versions/1');
});
