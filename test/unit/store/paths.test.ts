import { execFileSync } from 'node:child_process';
import { constants } from 'node:fs';
import { link, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readBounded, safeOpen } from '../../../agent/store/files.ts';
import { artifactDir, locationOf, makeDirectory, readersDir, stagingRoot } from '../../../agent/store/paths.ts';
import { sweep } from '../../../agent/store/sweep.ts';
import { readArtifact } from '../../../agent/store/verify.ts';
import { KEYS, makeArtifact, makeVolume, NEXT_START } from './volume.ts';

let volume: Awaited<ReturnType<typeof makeVolume>>;
let outside: Awaited<ReturnType<typeof makeVolume>>;
beforeEach(async () => {
  volume = await makeVolume();
  outside = await makeVolume();
});
afterEach(async () => {
  await volume.remove();
  await outside.remove();
});

describe('paths', () => {
  it('lie where the protocol says', () => {
    expect(artifactDir({ root: '/v' }, { id: 'a', version: '2' })).toBe('/v/a/versions/2');
    expect(stagingRoot({ root: '/v' }, 'a')).toBe('/v/a/versions/tmp');
    expect(locationOf('/checkpoints//', { id: 'a', version: '2' })).toBe('/checkpoints/a/versions/2');
    expect(locationOf('/', { id: 'a', version: '2' })).toBe('/a/versions/2');
  });

  it('stay below the volume whatever the ids are', () => {
    const strange = fc.oneof(
      fc.string(),
      fc.string({ unit: 'binary' }),
      fc.constantFrom('..', '.', 'tmp', 'a/b', '../x', '', 'a\0', '@', 'x'.repeat(64)),
    );
    fc.assert(
      fc.property(strange, strange, (id, version) => {
        for (const path of [artifactDir, readersDir]) {
          try {
            const [first, second, third, ...more] = path({ root: '/v' }, { id, version }).slice(3).split('/');
            expect([first, third, more]).toEqual([id, version, []]);
            expect(['versions', 'readers']).toContain(second);
            expect([id, version]).not.toContain('tmp');
          } catch (thrown) {
            expect(thrown).toMatchObject({ code: 'ID_INVALID' });
          }
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe.each(['ckpt', 'ckpt/versions', 'ckpt/versions/1', 'ckpt/versions/tmp'])('a link planted at %s', (level) => {
  const plant = async () => {
    await mkdir(join(volume.root, dirname(level)), { recursive: true });
    await symlink(outside.root, join(volume.root, level));
  };
  const refused = { code: 'STORAGE_UNSAFE', message: expect.stringContaining(`${level} is a symbolic link`) };

  it('is refused by name when an artifact is published, and nothing is made through it', async () => {
    await plant();
    await expect(makeArtifact(volume)).rejects.toMatchObject(refused);
    expect(await readdir(outside.root)).toEqual([]);
  });

  it('is not followed by reading or sweeping', async () => {
    await makeArtifact(outside);
    await rm(join(outside.root, 'ckpt/readers'), { recursive: true, force: true });
    await plant();
    if (!level.endsWith('tmp'))
      await expect(readArtifact(volume, { id: 'ckpt', version: '1', keys: KEYS })).rejects.toMatchObject(refused);
    await sweep(volume, { ...NEXT_START, staleAfterMs: 0, silentAfterMs: 0 });
    await expect(readArtifact(outside, { id: 'ckpt', version: '1', keys: KEYS })).resolves.toBeDefined();
  });
});

it('a file where a directory belongs is refused by name', async () => {
  await writeFile(join(volume.root, 'ckpt'), '');
  await expect(makeDirectory(volume.root, join(volume.root, 'ckpt/versions'))).rejects.toMatchObject({
    code: 'STORAGE_UNSAFE',
    message: expect.stringContaining('ckpt is not a directory'),
  });
});

describe('a file', () => {
  const open = (name: string) => safeOpen(join(volume.root, name), constants.O_RDONLY);

  it('is opened when it is a regular one with a single link', async () => {
    await writeFile(join(volume.root, 'file'), 'content');
    expect((await readBounded(join(volume.root, 'file'), 7, 'ARTIFACT_UNSAFE'))?.toString()).toBe('content');
    expect(await readBounded(join(volume.root, 'file'), 6, 'ARTIFACT_UNSAFE')).toBeUndefined();
  });

  it.each<[string, (path: string) => unknown]>([
    ['a link', (path) => symlink('/etc/passwd', path)],
    ['a FIFO, which would block', (path) => execFileSync('mkfifo', [path])],
    ['a device', (path) => execFileSync('mknod', [path, 'c', '1', '3'])],
    ['a directory', (path) => mkdir(path)],
    [
      'a hard link',
      async (path) => {
        await writeFile(join(volume.root, 'other'), '');
        await link(join(volume.root, 'other'), path);
      },
    ],
  ])('is refused when it is %s', async (_, make) => {
    await make(join(volume.root, 'file'));
    await expect(open('file')).rejects.toMatchObject({ code: 'ARTIFACT_UNSAFE' });
  });
});
