import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { failure, helperPath, run, scratch, start, startContainer, tidyUp, verb } from './programs.ts';

afterAll(tidyUp);

let container: Awaited<ReturnType<typeof startContainer>>;
let control: string;
let outside: string;
beforeEach(async () => {
  container = await startContainer();
  control = join(container.root, 'control');
  outside = scratch();
  writeFileSync(join(outside, 'precious'), 'untouched');
});

const on = (name: string, dir = '/control') => [...container.target, '--dir', dir, '--name', name];

describe('put', () => {
  test('writes the whole file with its mode, whatever the umask, and leaves nothing else', async () => {
    expect(await verb(['put', ...on('done')], { input: 'done\nx=1\n' })).toEqual({ written: 9 });
    expect(readFileSync(join(control, 'done'), 'utf8')).toBe('done\nx=1\n');
    expect(statSync(join(control, 'done')).mode & 0o7777).toBe(0o644);
    const umask = ['sh', '-c', 'umask 077; exec "$@"', 'sh'];
    await verb(['put', ...on('secret'), '--mode', '0640'], { input: '', prefix: umask });
    expect(statSync(join(control, 'secret')).mode & 0o7777).toBe(0o640);
    expect(readdirSync(control).sort()).toEqual(['done', 'secret']);
  });

  test('takes 64 KiB and no more', async () => {
    const most = Buffer.alloc(65536, 'm');
    expect(await verb(['put', ...on('most')], { input: most })).toEqual({ written: 65536 });
    expect(readFileSync(join(control, 'most')).equals(most)).toBe(true);
    const more = await failure(['put', ...on('more')], { input: Buffer.alloc(65537) });
    expect(more).toMatchObject({ errno: 'EFBIG', target: 'stdin' });
    expect(readdirSync(control)).toEqual(['most']);
  });

  test('replaces what lies there, a symlink too, without touching what that points at', async () => {
    writeFileSync(join(control, 'file'), 'old');
    symlinkSync(join(outside, 'precious'), join(control, 'link'));
    symlinkSync('/nowhere', join(control, 'dangling'));
    execFileSync('mkfifo', [join(control, 'fifo')]);
    for (const name of ['file', 'link', 'dangling', 'fifo']) {
      await verb(['put', ...on(name)], { input: 'new' });
      expect(lstatSync(join(control, name)).isFile(), name).toBe(true);
      expect(readFileSync(join(control, name), 'utf8')).toBe('new');
    }
    expect(readFileSync(join(outside, 'precious'), 'utf8')).toBe('untouched');
  });

  test('removes its temporary file when it fails', async () => {
    mkdirSync(join(control, 'taken'));
    expect(await failure(['put', ...on('taken')], { input: 'x' })).toMatchObject({ step: 'rename', errno: 'EISDIR' });
    expect(readdirSync(control)).toEqual(['taken']);
  });

  test('says when there is no control directory', async () => {
    writeFileSync(join(control, 'file'), '');
    for (const dir of ['/missing', '/missing/deep', '/control/file'])
      expect(await failure(['put', ...on('x', dir)])).toMatchObject({ code: 'NO_CONTROL_DIR' });
  });
});

describe('look', () => {
  test('tells the type of anything, and the content of a small regular file', async () => {
    writeFileSync(join(control, 'text'), 'line "1"\n\ttab\u0001 é');
    writeFileSync(join(control, 'empty'), '');
    writeFileSync(join(control, 'largest'), 'x'.repeat(4096));
    writeFileSync(join(control, 'larger'), 'x'.repeat(4097));
    mkdirSync(join(control, 'sub'));
    symlinkSync(join(outside, 'precious'), join(control, 'link'));
    execFileSync('mkfifo', [join(control, 'fifo')]);
    execFileSync('mknod', [join(control, 'null'), 'c', '1', '3']);
    const look = (name: string) => verb(['look', ...on(name)]);
    const found = { dir: true, exists: true };
    const text = 'line "1"\n\ttab\u0001 é';
    expect(await look('text')).toEqual({ ...found, type: 'file', size: Buffer.byteLength(text), content: text });
    expect(await look('empty')).toEqual({ ...found, type: 'file', size: 0, content: '' });
    expect(await look('largest')).toEqual({ ...found, type: 'file', size: 4096, content: 'x'.repeat(4096) });
    expect(await look('larger')).toEqual({ ...found, type: 'file', size: 4097 });
    expect(await look('sub')).toMatchObject({ ...found, type: 'directory' });
    const link = await look('link');
    expect(link).toMatchObject({ ...found, type: 'symlink' });
    expect(link).not.toHaveProperty('content');
    expect(await look('fifo')).toEqual({ ...found, type: 'fifo', size: 0 });
    expect(await look('null')).toMatchObject({ ...found, type: 'device' });
    expect(await look('nothing')).toEqual({ dir: true, exists: false });
    expect(await verb(['look', ...on('x', '/missing')])).toEqual({ dir: false, exists: false });
  });

  test('stays valid JSON when the content is not text', async () => {
    const bytes = Buffer.from([0xff, 0x41, 0xc0, 0x80, 0xed, 0xa0, 0x80, 0x00, 0xe2, 0x82]);
    writeFileSync(join(control, 'binary'), bytes);
    expect((await verb(['look', ...on('binary')]))['content']).toBe(
      '\ufffdA\ufffd\ufffd\ufffd\ufffd\ufffd\0\ufffd\ufffd',
    );
  });
});

test('remove takes the file or the link itself', async () => {
  writeFileSync(join(control, 'file'), '');
  symlinkSync(join(outside, 'precious'), join(control, 'link'));
  mkdirSync(join(control, 'sub'));
  expect(await verb(['remove', ...on('file')])).toEqual({ removed: true });
  expect(await verb(['remove', ...on('file')])).toEqual({ removed: false });
  expect(await verb(['remove', ...on('link')])).toEqual({ removed: true });
  expect(await verb(['remove', ...on('x', '/missing')])).toEqual({ removed: false });
  expect(await failure(['remove', ...on('sub')])).toMatchObject({ step: 'unlink', errno: 'EISDIR' });
  expect(readdirSync(control)).toEqual(['sub']);
  expect(readFileSync(join(outside, 'precious'), 'utf8')).toBe('untouched');
});

describe('planted symlinks', () => {
  test.each(['put', 'look', 'remove'])('on the way are refused: %s', async (name) => {
    rmdirSync(control);
    symlinkSync(outside, control);
    mkdirSync(join(container.root, 'deep/down'), { recursive: true });
    renameSync(join(container.root, 'deep/down'), join(container.root, 'deep/real'));
    symlinkSync('real', join(container.root, 'deep/down'));
    symlinkSync('/no/such/place', join(container.root, 'dangling'));
    for (const dir of ['/control', '/control/', '/control/.', '/deep/down', '/dangling', '/proc/self/root/plain'])
      expect(await failure([name, ...on('precious', dir)]), dir).toMatchObject({
        code: 'SYMLINK_REFUSED',
        errno: 'ELOOP',
      });
    expect(readdirSync(outside)).toEqual(['precious']);
    expect(readFileSync(join(outside, 'precious'), 'utf8')).toBe('untouched');
  });

  test('dot-dot does not lead out of the container', async () => {
    expect(await verb(['look', ...on('precious', `/../../../..${outside}`)])).toEqual({ dir: false, exists: false });
    expect(await verb(['put', ...on('here', '/../../control')], { input: 'x' })).toEqual({ written: 1 });
    expect(readFileSync(join(control, 'here'), 'utf8')).toBe('x');
  });

  test('swapped in while a file is put never let it out of the container', async () => {
    symlinkSync(outside, join(container.root, 'trap'));
    // One process swaps the directory and the link as fast as it can, while files are put into whichever is there.
    const swap = 'mv -T control aside; mv -T trap control; mv -T control trap; mv -T aside control';
    const swapper = await start(['sh', '-c', `cd ${container.root}; while :; do ${swap}; done`], { comm: 'sh' });
    const seen = new Set<string>();
    for (let i = 0; i < 100 || (seen.size < 3 && i < 3000); i++) {
      const result = await run([helperPath, 'put', ...on(`file-${i}`)], 'x');
      seen.add(result.code === 0 ? 'written' : (JSON.parse(result.stderr).code as string));
    }
    swapper.child.kill('SIGKILL');
    await swapper.ended;
    expect([...seen].sort()).toEqual(['NO_CONTROL_DIR', 'SYMLINK_REFUSED', 'written']);
    expect(readdirSync(outside)).toEqual(['precious']);
  }, 60_000);
});

test('a directory that nobody may enter is no obstacle', async () => {
  chmodSync(control, 0o000);
  await verb(['put', ...on('file')], { input: 'x' });
  expect(existsSync(join(control, 'file'))).toBe(true);
  rmSync(join(control, 'file'));
});
