import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstat, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { readTree } from '../../../agent/container/tree.ts';
import { watchedDirectories } from '../../../agent/container/watches.ts';
import { makeProcfs } from '../../fakes/procfs.ts';

const directories: string[] = [];
const temporary = async () => {
  const path = await mkdtemp(join(tmpdir(), 'watches-'));
  directories.push(path);
  return path;
};
afterEach(async () => {
  for (const path of directories.splice(0)) await rm(path, { recursive: true, force: true });
});

/** A process whose container has these files (a name that ends in a slash is a directory), and which watches some of them. */
async function watching(files: readonly string[], watched: readonly string[], descriptor = 'anon_inode:inotify') {
  const root = await temporary();
  for (const name of files) {
    const path = join(root, name);
    await mkdir(name.endsWith('/') ? path : dirname(path), { recursive: true });
    if (!name.endsWith('/')) await writeFile(path, '');
  }
  const inodes = await Promise.all(watched.map(async (name) => (await lstat(join(root, name))).ino));
  const lines = inodes.map(
    (ino, n) => `inotify wd:${n + 1} ino:${ino.toString(16)} sdev:800 mask:fce ignored_mask:0 fhandle-bytes:8\n`,
  );
  const procfs = await makeProcfs([
    { pid: 10, fds: { 5: descriptor }, files: { 'fdinfo/5': `pos:\t0\nflags:\t02004000\n${lines.join('')}` } },
  ]);
  directories.push(procfs.root);
  await symlink(root, join(procfs.root, '10/root'));
  const find = async () => await watchedDirectories(procfs.root, await readTree(procfs.root, 10));
  return { root, find };
}

describe('the directories of watched files', () => {
  it('are those that hold a watched file, or are watched', async () => {
    const { find } = await watching(
      ['/app/conf/a.yaml', '/app/other/b', '/srv/deep/er/'],
      ['/app/conf/a.yaml', '/srv/deep/er'],
    );
    expect((await find()).toSorted()).toEqual(['/app/conf', '/srv/deep/er']);
  });

  it('are named once however many files in them are watched', async () => {
    const { find } = await watching(['/etc/a', '/etc/b'], ['/etc/a', '/etc/b']);
    expect(await find()).toEqual(['/etc']);
  });

  it('are the watched file itself in the root directory, which CRIU would search with all below it', async () => {
    expect(await (await watching(['/file', '/other', '/tmp/'], ['/file'])).find()).toEqual(['/file']);
  });

  it('name the root directory last where it is watched itself', async () => {
    expect(await (await watching(['/tmp/a', '/app/b'], ['/', '/tmp/a', '/app/b'])).find()).toEqual([
      '/tmp',
      '/app',
      '/',
    ]);
  });

  it('are not looked for in kernel filesystems', async () => {
    const { find } = await watching(['/proc/a', '/sys/b', '/dev/c'], ['/proc/a', '/sys/b', '/dev/c']);
    expect(await find()).toEqual([]);
  });

  it('are not looked for behind symlinks', async () => {
    const outside = await temporary();
    await writeFile(join(outside, 'file'), '');
    const { root, find } = await watching(['/tmp/here'], ['/tmp/here']);
    await rm(join(root, 'tmp/here'));
    await symlink(outside, join(root, 'tmp/link'));
    await symlink('/etc', join(root, 'app'));
    expect(await find()).toEqual([]);
  });

  it('are none where nothing is watched', async () => {
    expect(await (await watching(['/etc/a'], [])).find()).toEqual([]);
    expect(await (await watching(['/etc/a'], ['/etc/a'], 'anon_inode:[eventpoll]')).find()).toEqual([]);
    expect(await watchedDirectories('/proc', [])).toEqual([]);
  });

  it('are found for a real process that watches a file', async () => {
    const directory = await temporary();
    const file = join(directory, 'watched');
    await writeFile(file, '');
    const program = `require('fs').watch(${JSON.stringify(file)}); console.log('ready'); setInterval(() => {}, 1000)`;
    const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'ignore'] });
    try {
      await once(child.stdout, 'data');
      expect(await watchedDirectories('/proc', await readTree('/proc', child.pid ?? 0))).toEqual([directory]);
    } finally {
      child.kill('SIGKILL');
    }
  });
});
