import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { automaticCheckpointName, cleanupJobName, legalName } from '../../../contract/operator-names.ts';

describe('names', () => {
  it('are those of the original system', () => {
    expect(automaticCheckpointName('f16f886e01830d6f95cde8217fdc6aff')).toBe(
      'checkpoint-f16f886e01830d6f95cde8217fdc6aff',
    );
    expect(cleanupJobName('3bff874d069f0ed5')).toBe('checkpoint-cleanup-3bff874d069f0ed5');
    expect(cleanupJobName('qwen-1.2')).toBe('checkpoint-cleanup-qwen-1.2');
  });

  it.each([
    ['capitals and underscores', 'My_Model'],
    ['length', 'a'.repeat(63)],
    ['dots in a row', 'a..b'],
    ['a dot beside a dash', 'a.-b'],
    ['a dash at the end', 'a-'],
  ])('are made legal where %s would be refused', (_, id) => {
    expect(cleanupJobName(id)).toMatch(/^checkpoint-cleanup-[a-z0-9-]+-[0-9a-f]{10}$/);
  });

  const ids = fc.stringMatching(/^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,62}$/);

  it('are legal for every id, and never the same for two', () => {
    fc.assert(
      fc.property(ids, ids, (id, other) => {
        const name = legalName(id);
        expect(name).toMatch(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/);
        expect(name.length).toBeLessThanOrEqual(63);
        expect(name === legalName(other)).toBe(id === other);
      }),
    );
  });

  it('begin with a letter or digit, however odd the id is', () => {
    expect(legalName('_-_a')).toMatch(/^a-[0-9a-f]{10}$/);
    expect(legalName('___')).toMatch(/^[0-9a-f]{10}$/);
  });
});
