import { describe, expect, it } from 'vitest';
import { ShapingError } from '../../../contract/shaping-error.ts';
import { agreedTargets, reportingProblem, type TargetSources, targetNames } from '../../../contract/targets.ts';

const KEY = 'nvidia.com/snapshot-target-containers';

describe('targetNames', () => {
  it.each([
    ['main', ['main']],
    [' a , b ', ['a', 'b']],
    ['', 'the list is missing or blank'],
    ['  ', 'the list is missing or blank'],
    ['a,,b', 'the list "a,,b" has an empty entry'],
    [',a', 'the list ",a" has an empty entry'],
    ['a, b,a', 'the list "a, b,a" names a container twice'],
  ])('reads %j as %j', (text, expected) => {
    expect(targetNames(text, 'the list')).toEqual(expected);
  });
});

describe('agreedTargets', () => {
  const of = (over: Partial<TargetSources>) => () =>
    agreedTargets({ flag: undefined, flagName: '--containers', annotation: undefined, limit: 9, ...over });

  it('takes what is given: flag, annotation, or both where they say the same', () => {
    expect(of({ flag: 'a, b' })()).toEqual(['a', 'b']);
    expect(of({ annotation: 'a,b' })()).toEqual(['a', 'b']);
    expect(of({ flag: 'a,b', annotation: ' a , b' })()).toEqual(['a', 'b']);
    expect(of({ flag: ' ', annotation: 'a' })()).toEqual(['a']);
  });

  it.each<[Partial<TargetSources>, string]>([
    [{}, `target containers are required: pass --container(s) or set ${KEY}`],
    [
      { flag: 'a', annotation: 'b' },
      `--container(s) flag "a" does not match manifest ${KEY} "b"; pass one or the other`,
    ],
    [
      { flag: 'a,b', annotation: 'b,a' },
      `--container(s) flag "a,b" does not match manifest ${KEY} "b,a"; pass one or the other`,
    ],
    [{ flag: 'a,b', limit: 1 }, 'expected at most 1 target container(s), got 2'],
    [{ flag: 'a,' }, '--containers "a," has an empty entry'],
    [{ annotation: 'a,a' }, `annotation ${KEY} "a,a" names a container twice`],
  ])('refuses %j', (over, message) => {
    expect(of(over)).toThrow(new ShapingError(message));
  });
});

it('knows the names of containers that cannot be reported on', () => {
  expect(reportingProblem('c'.repeat(33))).toBeUndefined();
  expect(reportingProblem('c'.repeat(34))).toContain(
    'is no legal key: 64 characters after the slash, at most 63 are allowed',
  );
});
