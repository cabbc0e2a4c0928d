import { execFileSync } from 'node:child_process';
import { link, mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { copyVerified, verifyFiles } from '../../../agent/store/copy.ts';
import { deleteArtifact } from '../../../agent/store/deletion.ts';
import { listArtifacts } from '../../../agent/store/list.ts';
import { activeReaders, holdReader } from '../../../agent/store/readers.ts';
import { requireSpace, spaceOf } from '../../../agent/store/space.ts';
import { artifactState, readArtifact } from '../../../agent/store/verify.ts';
import { FILES, KEYS, makeArtifact, makeVolume, otherKey, writeFiles } from './volume.ts';

let volume: Awaited<ReturnType<typeof makeVolume>>;
beforeEach(async () => {
  volume = await makeVolume();
});
afterEach(() => volume.remove());

const name = { id: 'ckpt', version: '1' };
const query = { ...name, keys: KEYS };
const at = (path: string) => join(volume.root, 'ckpt/versions', path);
const reader = { ...name, operation: { node: 'node-a', bootId: 'boot-a', operationId: 'restore-1' } };
const aside = () => readdir(at('tmp'));
const foreignKeys = { current: otherKey, accepted: [otherKey] };

describe('publishing', () => {
  it('makes a complete artifact and leaves nothing else', async () => {
    const { record, directory } = await makeArtifact(volume);
    expect(directory).toBe(at('1'));
    expect((await readArtifact(volume, query)).record).toEqual(record);
    expect(record.files.map((entry) => entry.path)).toEqual(Object.keys(FILES).sort());
    expect(await aside()).toEqual([]);
    expect((await stat(at('1'))).mode & 0o777).toBe(0o700);
    expect((await stat(at('1/manifest.yaml'))).mode & 0o777).toBe(0o600);
  });

  it('leaves a complete artifact alone unless replacement is asked for', async () => {
    await makeArtifact(volume);
    await expect(makeArtifact(volume, { operationId: 'op-2' })).rejects.toMatchObject({ code: 'ARTIFACT_EXISTS' });
    expect((await readArtifact(volume, query)).record.operationId).toBe('op-1');
    const replaced = await makeArtifact(volume, { operationId: 'op-2', mode: 'replace' });
    expect(replaced.displaced).toEqual({ was: 'complete', problem: '' });
    expect((await readArtifact(volume, query)).record.operationId).toBe('op-2');
    expect(await aside()).toEqual([]);
  });

  it.each([
    ['has lost its record', () => rm(at('1/manifest.yaml')), /no completion record/],
    ['has lost a file', () => rm(at('1/criu/core-1.img')), /is missing/],
    ['is empty', () => rm(at('1'), { recursive: true }).then(() => mkdir(at('1'))), /no completion record/],
    [
      'has an edited record',
      async () =>
        writeFile(at('1/manifest.yaml'), (await readFile(at('1/manifest.yaml'), 'utf8')).replace('team', 'tear')),
      /signature/,
    ],
  ])('moves aside what %s, and says so', async (_, spoil, problem) => {
    await makeArtifact(volume);
    await spoil();
    const { displaced } = await makeArtifact(volume, { operationId: 'op-2' });
    expect(displaced).toMatchObject({
      was: 'unusable',
      problem: expect.stringMatching(problem),
      left: { path: at('tmp/op-2@1.old') },
    });
    expect((await readArtifact(volume, query)).record.operationId).toBe('op-2');
  });

  it('does not displace what another key signed, or a newer agent wrote', async () => {
    await makeArtifact(volume, { keys: foreignKeys });
    await expect(makeArtifact(volume, { operationId: 'op-2' })).rejects.toMatchObject({ code: 'ARTIFACT_EXISTS' });
    await expect(makeArtifact(volume, { operationId: 'op-2', mode: 'replace' })).rejects.toMatchObject({
      code: 'ARTIFACT_UNSIGNED',
    });
    await writeFile(at('1/manifest.yaml'), 'formatVersion: 2\nminReader: 2\n');
    await expect(makeArtifact(volume, { operationId: 'op-2', mode: 'replace' })).rejects.toMatchObject({
      code: 'ARTIFACT_FORMAT',
    });
  });

  it('does not replace what another namespace made, even where it is damaged', async () => {
    const { record } = await makeArtifact(volume);
    const mine = {
      operationId: 'op-2',
      mode: 'replace' as const,
      record: { source: { ...record.source, namespace: 'other' } },
    };
    await expect(makeArtifact(volume, mine)).rejects.toMatchObject({ code: 'ARTIFACT_FOREIGN' });
    await rm(at('1/criu/core-1.img'));
    await expect(makeArtifact(volume, mine)).rejects.toMatchObject({ code: 'ARTIFACT_FOREIGN' });
  });

  it('by many at once: one wins, the others are told, and nothing is mixed', async () => {
    const tries = Array.from({ length: 12 }, (_, n) =>
      makeArtifact(volume, {
        operationId: `op-${n}`,
        files: { 'criu/core-1.img': `${n}` },
        mode: n % 2 ? 'replace' : 'new',
      }),
    );
    const ended = await Promise.allSettled(tries);
    for (const one of ended)
      if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'ARTIFACT_EXISTS' });
    const { record, directory } = await readArtifact(volume, query);
    expect(`op-${await readFile(join(directory, 'criu/core-1.img'), 'utf8')}`).toBe(record.operationId);
    await verifyFiles(directory, record.files);
  });

  it('leaves a replaced artifact to those who read it', async () => {
    await makeArtifact(volume);
    const hold = await holdReader(volume, reader);
    const { displaced } = await makeArtifact(volume, {
      operationId: 'op-2',
      mode: 'replace',
      files: { 'criu/core-1.img': 'new' },
    });
    expect(displaced?.left).toEqual({ path: at('tmp/op-2@1.old'), why: 'read by restore-1' });
    // The hold is the old directory still, complete, wherever it lies now.
    const held = await readArtifact(volume, { ...query, directory: hold.directory });
    expect(held.record.operationId).toBe('op-1');
    await verifyFiles(
      hold.directory,
      held.record.files.filter((entry) => entry.sha256 !== ''),
    );
    await hold.stop();
    await hold.stop();
    expect(await activeReaders(volume, name)).toEqual([]);
  });

  it.each<[string, (path: string) => unknown]>([
    ['a link', (path) => symlink('/etc/passwd', path)],
    ['a FIFO', (path) => execFileSync('mkfifo', [path])],
    ['a hard link', (path) => link(at('1/criu/core-1.img'), path)],
  ])('and reading refuse %s among the files', async (_, plant) => {
    await makeArtifact(volume);
    await plant(at('1/criu/planted'));
    expect(await artifactState(volume, query)).toMatchObject({
      state: 'problem',
      problem: { code: 'ARTIFACT_UNSAFE' },
    });
  });
});

describe('reading', () => {
  it('says that there is none', async () => {
    expect(await artifactState(volume, query)).toEqual({ state: 'absent' });
    await expect(readArtifact(volume, query)).rejects.toMatchObject({ code: 'ARTIFACT_NOT_FOUND' });
    await expect(holdReader(volume, reader)).rejects.toMatchObject({ code: 'ARTIFACT_NOT_FOUND' });
  });

  it('refuses another namespace', async () => {
    await makeArtifact(volume);
    await expect(readArtifact(volume, { ...query, namespace: 'team' })).resolves.toBeDefined();
    await expect(readArtifact(volume, { ...query, namespace: 'other' })).rejects.toMatchObject({
      code: 'ARTIFACT_FOREIGN',
    });
  });

  it.each([
    [
      'a file of another size',
      () => writeFile(at('1/criu/core-1.img'), 'longer'),
      'ARTIFACT_CORRUPT',
      /6 bytes, the record says 4/,
    ],
    [
      'a file too many',
      () => writeFile(at('1/criu/extra'), ''),
      'ARTIFACT_CORRUPT',
      /criu\/extra is not in the record/,
    ],
    [
      'a record that is a link',
      () => rename(at('1/manifest.yaml'), at('m')).then(() => symlink(at('m'), at('1/manifest.yaml'))),
      'ARTIFACT_UNSAFE',
      /manifest/,
    ],
    [
      'a record that is not UTF-8',
      () => writeFile(at('1/manifest.yaml'), Buffer.from([0xff])),
      'ARTIFACT_CORRUPT',
      /UTF-8/,
    ],
    ['directories without end', () => mkdir(at('1/a/b/c/d/e'), { recursive: true }), 'ARTIFACT_CORRUPT', /too deep/],
  ])('refuses %s', async (_, spoil, code, message) => {
    await makeArtifact(volume);
    await spoil();
    await expect(readArtifact(volume, query)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  it('refuses a signed artifact under another name', async () => {
    await makeArtifact(volume);
    await rename(at('1'), at('2'));
    await expect(readArtifact(volume, { ...query, version: '2' })).rejects.toMatchObject({
      code: 'ARTIFACT_CORRUPT',
      message: expect.stringMatching(/that of ckpt, version 1/),
    });
  });

  it('lists what is there', async () => {
    await makeArtifact(volume);
    await makeArtifact(volume, { id: 'b', version: 'v.2' });
    await symlink('/etc', join(volume.root, 'planted'));
    expect(await listArtifacts(volume, 10)).toEqual({ artifacts: [{ id: 'b', version: 'v.2' }, name], more: false });
    expect(await listArtifacts(volume, 1)).toMatchObject({ more: true });
  });
});

describe('a verified copy', () => {
  const setUp = async () => {
    const { record, directory } = await makeArtifact(volume);
    const files = record.files.filter((entry) => entry.path.startsWith('criu/'));
    const to = join(volume.root, 'private');
    await mkdir(to);
    return { from: directory, to, files };
  };

  it('has the content that was signed', async () => {
    const request = await setUp();
    await copyVerified(request);
    for (const { path } of request.files) expect(await readFile(join(request.to, path), 'utf8')).toBe(FILES[path]);
  });

  it.each([
    [
      'other content',
      () => writeFiles(at('1'), { 'criu/core-1.img': 'c0re' }),
      'ARTIFACT_CORRUPT',
      /core-1.img has SHA-256 [0-9a-f]{64}, the record says [0-9a-f]{64}/,
    ],
    [
      'more content',
      () => writeFiles(at('1'), { 'criu/core-1.img': 'x'.repeat(99) }),
      'ARTIFACT_CORRUPT',
      /more than 4 bytes, the record says 4/,
    ],
    ['less content', () => writeFiles(at('1'), { 'criu/core-1.img': 'x' }), 'ARTIFACT_CORRUPT', /has 1 bytes/],
    ['no such file', () => rm(at('1/criu/core-1.img')), 'ARTIFACT_CORRUPT', /missing/],
    [
      'a link instead',
      () => rm(at('1/criu/core-1.img')).then(() => symlink('pages-1.img', at('1/criu/core-1.img'))),
      'ARTIFACT_UNSAFE',
      /core-1/,
    ],
    [
      'a linked directory',
      () => rename(at('1/criu'), at('1/real')).then(() => symlink('real', at('1/criu'))),
      'STORAGE_UNSAFE',
      /criu is a symbolic link/,
    ],
  ])('is refused with %s, and nothing of it stays', async (_, spoil, code, message) => {
    const request = await setUp();
    await spoil();
    await expect(copyVerified(request)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    expect(await readdir(join(request.to, 'criu'))).not.toContain('core-1.img');
  });
});

describe('deletion', () => {
  const deletion = { ...query, operationId: 'del-1', waitMs: 0 };

  it('removes all of a checkpoint with its last artifact', async () => {
    await makeArtifact(volume);
    await deleteArtifact(volume, { ...deletion, namespace: 'team' });
    expect(await readdir(volume.root)).toEqual([]);
    await expect(deleteArtifact(volume, deletion)).rejects.toMatchObject({ code: 'ARTIFACT_NOT_FOUND' });
  });

  it('leaves other versions', async () => {
    await makeArtifact(volume);
    await makeArtifact(volume, { version: '2' });
    await deleteArtifact(volume, deletion);
    expect((await listArtifacts(volume, 9)).artifacts).toEqual([{ id: 'ckpt', version: '2' }]);
  });

  it('is refused while somebody reads, and the artifact stays', async () => {
    await makeArtifact(volume);
    const hold = await holdReader(volume, reader);
    await expect(deleteArtifact(volume, deletion)).rejects.toMatchObject({
      code: 'ARTIFACT_BUSY',
      message: expect.stringContaining('restore-1'),
    });
    await expect(readArtifact(volume, query)).resolves.toBeDefined();
    await hold.stop();
    await deleteArtifact(volume, deletion);
    expect(await artifactState(volume, query)).toEqual({ state: 'absent' });
  });

  it('is refused to another namespace, also where nobody can tell whose it is', async () => {
    await makeArtifact(volume);
    await expect(deleteArtifact(volume, { ...deletion, namespace: 'other' })).rejects.toMatchObject({
      code: 'ARTIFACT_FOREIGN',
    });
    await rm(at('1/manifest.yaml'));
    await expect(deleteArtifact(volume, { ...deletion, namespace: 'team' })).rejects.toMatchObject({
      code: 'ARTIFACT_NOT_FOUND',
    });
    await deleteArtifact(volume, deletion);
  });

  it('takes what was moved aside with it, so that nothing comes back', async () => {
    await makeArtifact(volume);
    const hold = await holdReader(volume, reader);
    await makeArtifact(volume, { operationId: 'op-2', mode: 'replace' });
    await hold.stop();
    expect(await aside()).toEqual(['op-2@1.old']);
    await deleteArtifact(volume, deletion);
    expect(await readdir(volume.root)).toEqual([]);
  });
});

it('space is told, and its lack refused with both values', async () => {
  const { freeBytes } = await spaceOf(volume);
  await expect(requireSpace(volume, 1)).resolves.toBeDefined();
  await expect(requireSpace(volume, Number.MAX_SAFE_INTEGER)).rejects.toMatchObject({
    code: 'STORAGE_FULL',
    reasons: [{ found: expect.stringMatching(/^\d+ bytes$/), wanted: `${Number.MAX_SAFE_INTEGER} bytes` }],
  });
  expect(freeBytes).toBeGreaterThan(0);
});
