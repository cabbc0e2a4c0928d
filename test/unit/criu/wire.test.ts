import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bytesField, numberField, replaceFields, sameOutside } from '../../../agent/criu/images/edit.ts';
import { readFirstEntry, readImage, readOnlyEntry, replaceEntries } from '../../../agent/criu/images/file.ts';
import { big, parseMessage, sint, text, uint, uints } from '../../../agent/criu/images/wire.ts';
import { SnapshotError } from '../../../agent/errors.ts';
import { makeDir, message, put } from './synthetic.ts';

const corrupt = expect.objectContaining({ code: 'ARTIFACT_CORRUPT' });

const field = fc.oneof(
  fc
    .tuple(fc.integer({ min: 1, max: 2 ** 29 - 1 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }))
    .map(([n, v]) => numberField(n, v)),
  fc.tuple(fc.integer({ min: 1, max: 300 }), fc.uint8Array({ maxLength: 300 })).map(([n, v]) => bytesField(n, v)),
);

describe('parseMessage', () => {
  it('cuts any message into fields whose bytes are the message', () => {
    fc.assert(
      fc.property(fc.array(field), (fields) => {
        const bytes = Buffer.concat(fields);
        const parsed = parseMessage(bytes, 'm').fields.map(({ raw }) => raw);
        expect(Buffer.concat(parsed).equals(bytes)).toBe(true);
        expect(parsed).toHaveLength(fields.length);
      }),
    );
  });

  it('reads random bytes as fields or refuses them as corrupt, never otherwise', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          expect(Buffer.concat(parseMessage(bytes, 'm').fields.map(({ raw }) => raw)).equals(bytes)).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(SnapshotError);
          expect(error).toEqual(corrupt);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it.each([
    ['a number cut off', [0x08, 0x80]],
    ['a number of eleven bytes', [0x08, ...Array(10).fill(0xff), 1]],
    ['a number above 64 bits', [0x08, ...Array(9).fill(0xff), 0x02]],
    ['a length behind the end', [0x0a, 0x05, 1, 2]],
    ['a length of 2^63', [0x0a, ...Array(8).fill(0x80), 0x40]],
    ['a group', [0x0b]],
    ['field number 0', [0x00, 0x00]],
    ['a fixed number cut off', [0x09, 1, 2, 3]],
  ])('refuses %s', (_, bytes) => {
    expect(() => parseMessage(Uint8Array.from(bytes), 'm')).toThrow(corrupt);
  });
});

describe('reading fields', () => {
  it('gives numbers, texts and lists', () => {
    const parsed = parseMessage(
      message([1, 5], [2, 'abc'], [3, 1], [3, 2], [3, Uint8Array.from([3, 0x80, 1])], [4, 3], [5, 2n ** 63n]),
      'm',
    );
    expect([uint(parsed, 1), text(parsed, 2), uints(parsed, 3), sint(parsed, 4), big(parsed, 5)]).toEqual([
      5,
      'abc',
      [1, 2, 3, 128],
      -2,
      2n ** 63n,
    ]);
    expect([uint(parsed, 9), text(parsed, 9), uints(parsed, 9)]).toEqual([undefined, undefined, []]);
  });

  it('refuses what CRIU would read otherwise', () => {
    expect(() => uint(parseMessage(message([1, 5], [1, 6]), 'm'), 1)).toThrow(corrupt);
    expect(() => uint(parseMessage(message([1, 'x']), 'm'), 1)).toThrow(corrupt);
    expect(() => uint(parseMessage(message([1, 2n ** 32n]), 'm'), 1)).toThrow(corrupt);
    expect(() => text(parseMessage(message([1, 'a\0b']), 'm'), 1)).toThrow(corrupt);
  });
});

describe('replaceFields', () => {
  it('keeps the bytes and the order of all other fields', () => {
    fc.assert(
      fc.property(fc.array(field), fc.integer({ min: 1, max: 300 }), fc.nat(), (fields, number, value) => {
        const before = Buffer.concat(fields);
        const after = replaceFields(parseMessage(before, 'm'), new Map([[number, [numberField(number, value)]]]));
        expect(sameOutside(before, after, new Set([number]))).toBe(true);
        expect(uint(parseMessage(after, 'm'), number)).toBe(value);
      }),
    );
  });
});

describe('image files', () => {
  const make = (entries: Uint8Array[]) => {
    const dir = makeDir();
    put(dir, 'files.img', 'files', entries);
    return path.join(dir, 'files.img');
  };

  it('are read back, and edited without touching other entries', async () => {
    const file = make([message([1, 1]), message([1, 2]), message([1, 3])]);
    const image = await readImage(file, 'files');
    await replaceEntries(file, image, new Map([[1, message([1, 99])]]));
    const after = await readImage(file, 'files');
    expect(after.entries.map((entry) => uint(parseMessage(entry, 'm'), 1))).toEqual([1, 99, 3]);
  });

  it('are refused at every length that is not whole', async () => {
    const file = make([message([1, 1], [2, 'some text']), message([1, 2])]);
    const whole = readFileSync(file);
    const boundaries = new Set([8, 8 + 4 + 13, whole.length]);
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(file, whole.subarray(0, length));
      if (boundaries.has(length)) await readImage(file, 'files');
      else await expect(readImage(file, 'files')).rejects.toEqual(corrupt);
    }
  });

  it('are refused for another kind, a huge entry, a link, a pipe, or when missing', async () => {
    const file = make([]);
    await expect(readImage(file, 'core')).rejects.toEqual(corrupt);
    await expect(readOnlyEntry(file, 'files')).rejects.toEqual(corrupt);
    await expect(readFirstEntry(file, 'files')).rejects.toEqual(corrupt);
    writeFileSync(file, Buffer.concat([readFileSync(file), Buffer.from('ffffffff', 'hex')]));
    await expect(readImage(file, 'files')).rejects.toEqual(corrupt);
    const { execFileSync } = await import('node:child_process');
    const dir = path.dirname(file);
    execFileSync('ln', ['-s', file, path.join(dir, 'link.img')]);
    execFileSync('mkfifo', [path.join(dir, 'pipe.img')]);
    execFileSync('truncate', ['-s', '300G', path.join(dir, 'sparse.img')]);
    for (const name of ['link.img', 'pipe.img', 'sparse.img', 'none.img']) {
      await expect(readImage(path.join(dir, name), 'files')).rejects.toEqual(corrupt);
    }
  });
});
