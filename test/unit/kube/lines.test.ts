import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newLineSplitter } from '../../../kube/lines.ts';

describe('a splitter of lines', () => {
  it('gives the same lines however the text is cut into pieces', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'ü', '\n') });
    fc.assert(
      fc.property(text, fc.array(fc.nat(20)), (whole, cuts) => {
        const splitter = newLineSplitter(1_000);
        const lines: string[] = [];
        let rest = whole;
        for (const cut of cuts) {
          lines.push(...splitter.push(rest.slice(0, cut)));
          rest = rest.slice(cut);
        }
        lines.push(...splitter.push(rest));
        const expected = whole.split('\n');
        expect(splitter.rest).toBe(expected.pop());
        expect(lines).toEqual(expected.filter((line) => line !== ''));
      }),
    );
  });

  it('refuses a line that gets too long, in one piece or in many', () => {
    expect(() => newLineSplitter(3).push('abcd')).toThrow(RangeError);
    const splitter = newLineSplitter(3);
    expect(splitter.push('ab\nabc')).toEqual(['ab']);
    expect(() => splitter.push('d\n')).toThrow('more than 3 characters');
  });
});
