import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { mergePatch } from '../../../operator/control/merge-patch.ts';
import { applyPatch } from '../../fakes/kube-api/patch.ts';
import type { Json } from '../../fakes/kube-api/resources.ts';

const MERGE = 'application/merge-patch+json';

describe('a merge patch', () => {
  it.each<[string, Json, Json, Json | undefined]>([
    ['nothing where nothing differs', { a: 1, b: { c: [1] } }, { a: 1, b: { c: [1] } }, undefined],
    ['what is new', { a: 1 }, { a: 1, b: 2 }, { b: 2 }],
    ['what changed, and only that', { a: { b: 1, c: 1 }, d: 1 }, { a: { b: 2, c: 1 }, d: 1 }, { a: { b: 2 } }],
    ['null for what is gone', { a: 1, b: 2 }, { a: 1 }, { b: null }],
    ['null for what is undefined', { a: 1 }, { a: undefined }, { a: null }],
    ['nothing for what was and is undefined', { a: undefined }, {}, undefined],
    ['whole lists', { a: [{ b: 1 }, { c: 1 }] }, { a: [{ b: 1 }] }, { a: [{ b: 1 }] }],
    ['a map in the place of a value', { a: 1 }, { a: { b: 1 } }, { a: { b: 1 } }],
    ['an empty map', {}, { a: {} }, { a: {} }],
  ])('has %s', (_, before, after, patch) => {
    expect(mergePatch(before, after)).toEqual(patch);
  });

  it('makes of any object any other one, and nothing is left to patch then', () => {
    const { tree } = fc.letrec<{ tree: Json; value: unknown }>((tie) => ({
      tree: fc.dictionary(fc.constantFrom('a', 'b', 'c'), tie('value'), { maxKeys: 3 }) as fc.Arbitrary<Json>,
      value: fc.oneof({ depthSize: 'small' }, fc.integer(), fc.string(), fc.array(fc.integer()), tie('tree')),
    }));
    fc.assert(
      fc.property(tree, tree, (before, after) => {
        const patched = applyPatch(before, mergePatch(before, after) ?? {}, MERGE);
        expect(patched).toEqual(after);
        expect(mergePatch(patched, after)).toBeUndefined();
      }),
    );
  });
});
