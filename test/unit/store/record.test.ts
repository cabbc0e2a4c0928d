import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import {
  type ArtifactRecord,
  decodeRecord,
  deriveBulkKey,
  encodeRecord,
  MAX_RECORD_BYTES,
  requireRecordable,
} from '../../../agent/store/record.ts';
import { draft, KEYS, otherKey } from './volume.ts';

const key = KEYS.current;
const record: ArtifactRecord = {
  ...draft(),
  formatVersion: 1,
  minReader: 1,
  checkpointId: 'ckpt',
  version: '1',
  files: [
    { path: 'criu/core-1.img', size: 4, sha256: '0f'.repeat(32) },
    { path: 'memory/bulk.pages', size: 5, sha256: '' },
  ],
};
const text = encodeRecord(record, key);

/** A record that an agent with the key would have signed, whatever it says. */
function sign(body: string): string {
  const value = createHmac('sha256', key.secret).update('snapshot-record\n').update(body).digest('hex');
  return `${body}signature:\n  algorithm: HMAC-SHA-256\n  keyId: "${key.id}"\n  value: "${value}"\n`;
}

const failure = (run: () => unknown) => {
  try {
    run();
  } catch (thrown) {
    return thrown;
  }
  return undefined;
};

describe('a completion record', () => {
  it('comes back as it was written', () => {
    expect(decodeRecord(text, KEYS)).toEqual({ record, key });
  });

  it('comes back whatever its texts and numbers are', () => {
    const words = fc.oneof(
      fc.string(),
      fc.string({ unit: 'binary' }),
      fc.constantFrom('yes', '~', '- a', '*x', '&x', '\u0085', '---\n...', 'signature:\n'),
    );
    fc.assert(
      fc.property(
        words,
        words,
        fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }),
        fc.maxSafeNat(),
        (one, two, seconds, size) => {
          const changed: ArtifactRecord = {
            ...record,
            source: { ...record.source, pod: one.slice(0, 60), image: two },
            process: { ...record.process, tty: two, stdio: [one, two, ''] },
            pauseSeconds: seconds,
            memory: { limitBytes: size, residentBytes: 0 },
          };
          if (Buffer.from(changed.source.pod).toString() !== changed.source.pod) return;
          expect(decodeRecord(encodeRecord(changed, key), KEYS).record).toEqual(changed);
        },
      ),
    );
  });

  it('is refused when any one of its bytes is changed', () => {
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.integer({ min: 1, max: 126 }), (place, by) => {
        const changed = String.fromCharCode((text.charCodeAt(place) + by) % 127 || 1);
        fc.pre(changed !== text[place]);
        expect(() => decodeRecord(text.slice(0, place) + changed + text.slice(place + 1), KEYS)).toThrow();
      }),
      { numRuns: 500 },
    );
  });

  it.each([
    ['an edited field', text.replace('worker-0', 'worker-1'), 'ARTIFACT_UNSIGNED', /signature of the record is wrong/],
    ['no signature', text.slice(0, text.indexOf('signature:')), 'ARTIFACT_UNSIGNED', /not signed/],
    ['something behind the signature', `${text}mounts: []\n`, 'ARTIFACT_UNSIGNED', /not signed/],
    ['an unknown key', encodeRecord(record, otherKey), 'ARTIFACT_UNSIGNED', new RegExp(otherKey.id)],
    [
      'a forged signature under a known key',
      encodeRecord(record, { ...otherKey, id: key.id }),
      'ARTIFACT_UNSIGNED',
      /wrong/,
    ],
    ['a newer format', text.replace('formatVersion: 1', 'formatVersion: 2'), 'ARTIFACT_FORMAT', /formatVersion 2/],
    ['a newer reader needed', text.replace('minReader: 1', 'minReader: 7'), 'ARTIFACT_FORMAT', /minReader 7/],
    ['the record of another system', 'checkpointId: abc\ncreatedAt: now\n', 'ARTIFACT_FORMAT', /another system/],
    ['nothing', '', 'ARTIFACT_CORRUPT', /does not begin/],
    ['too much', `${text}${'#'.repeat(MAX_RECORD_BYTES)}`, 'ARTIFACT_CORRUPT', /more than/],
    [
      'a signed unknown field',
      sign(text.slice(0, text.indexOf('signature:')).concat('extra: 1\n')),
      'ARTIFACT_CORRUPT',
      /extra/,
    ],
    ['a signed alias', sign('formatVersion: 1\nminReader: 1\na: &a [1]\nb: *a\n'), 'ARTIFACT_CORRUPT', /its form/],
    ['a field given twice', sign('formatVersion: 1\nminReader: 1\nminReader: 1\n'), 'ARTIFACT_CORRUPT', /twice/],
    [
      'signed nesting without end',
      sign(`formatVersion: 1\nminReader: 1\na: ${'['.repeat(100)}\n`),
      'ARTIFACT_CORRUPT',
      /its form/,
    ],
  ])('with %s is refused by name', (_, given, code, message) => {
    expect(failure(() => decodeRecord(given, KEYS))).toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it('is YAML to everybody else', () => {
    const { signature, ...fields } = parse(text) as Record<string, unknown>;
    expect(fields).toEqual(record);
    expect(signature).toMatchObject({ algorithm: 'HMAC-SHA-256' });
  });

  it('that nobody signed is not parsed: a bomb costs nothing', () => {
    const bomb = `formatVersion: 1\nminReader: 1\na: &a [x]\n${Array.from({ length: 60_000 }, (_, n) => `k${n}: [*a,*a,*a]\n`).join('')}`;
    expect(failure(() => decodeRecord(bomb, KEYS))).toMatchObject({ code: 'ARTIFACT_UNSIGNED' });
  });

  it.each(['../x', '/x', 'a/../b', 'a//b', '', 'a/b/c/d/e', 'manifest.yaml', 'a/.', 'a\nb'])(
    'cannot list the file %j',
    (path) => {
      const files = [{ path, size: 1, sha256: '0f'.repeat(32) }];
      expect(() => encodeRecord({ ...record, files }, key)).toThrow(/cannot be written/);
    },
  );

  it('lists each file once, and only the bulk pages without a digest', () => {
    const entry = { path: 'a', size: 1, sha256: '0f'.repeat(32) };
    expect(() => encodeRecord({ ...record, files: [entry, entry] }, key)).toThrow(/twice/);
    expect(() => encodeRecord({ ...record, files: [{ ...entry, sha256: '' }] }, key)).toThrow(/digest/);
    expect(() => encodeRecord({ ...record, files: [{ ...entry, path: 'memory/bulk.pages' }] }, key)).toThrow(/digest/);
  });

  it('is accepted under an older key, and says which', () => {
    const keys = { current: otherKey, accepted: [otherKey, key] };
    expect(decodeRecord(text, keys).key).toBe(key);
  });
});

describe('what a record is to be made of', () => {
  const { sizes: _sizes, bulk: _bulk, timings: _timings, ...made } = draft();

  it('is looked at beforehand: its form, its size, the number of files', () => {
    requireRecordable(made, 19_993);
    expect(() => requireRecordable(made, 19_994)).toThrow('CRIU wrote 19994 images');
    const mounts = Array.from({ length: 10_000 }, () => ({ mountPoint: `/${'m'.repeat(400)}`, fstype: 'tmpfs' }));
    expect(() => requireRecordable({ ...made, mounts }, 1)).toThrow('more mounts than a record can hold');
    const source = { ...made.source, image: 'i'.repeat(2049) };
    expect(() => requireRecordable({ ...made, source }, 1)).toThrow('image');
  });
});

describe('a bulk key', () => {
  it('depends on the record key and the salt', () => {
    const one = deriveBulkKey(key, '00'.repeat(32));
    expect(one).toMatch(/^[0-9a-f]{64}$/);
    expect(deriveBulkKey(key, '00'.repeat(32))).toBe(one);
    expect(new Set([one, deriveBulkKey(key, '01'.repeat(32)), deriveBulkKey(otherKey, '00'.repeat(32))]).size).toBe(3);
  });

  it('needs a whole salt', () => {
    expect(() => deriveBulkKey(key, 'ab')).toThrow(/64 hex/);
  });
});
