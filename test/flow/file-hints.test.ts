import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, realpath, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type FileHints, newFileHints } from '../../agent/watch/file-hints.ts';
import { until } from '../fakes/cri-server.ts';
import { type LogLine, memoryLog } from '../fakes/log.ts';

let dir: string;
let hints: FileHints | undefined;
beforeEach(async () => {
  dir = await realpath(await mkdtemp(join(tmpdir(), 'file-hints-')));
});
afterEach(async () => {
  hints?.close();
  await rm(dir, { recursive: true, force: true });
});

function begin(options: { mountTable?: string } = {}) {
  const looked: string[] = [];
  const logged = memoryLog();
  const made = newFileHints({ lookAgain: (key) => looked.push(key), log: logged.log, ...options });
  hints = made;
  const polled = () => logged.said('the file is polled, not watched');
  return { hints: made, looked, polled };
}

const reasonOf = ([line]: readonly LogLine[]) => (line?.['err'] as Error | undefined)?.message;

/** What this process watches, as the kernel counts it. */
function watches(): number {
  const text = (fd: string) => {
    try {
      return readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8');
    } catch {
      return '';
    }
  };
  return readdirSync('/proc/self/fdinfo').reduce((sum, fd) => sum + (text(fd).match(/^inotify /gm) ?? []).length, 0);
}
const watched = (count: number) => until(() => watches() === count, `${count} watches`);
const touch = (name: string) => writeFile(join(dir, name), '');

describe('a file that is awaited', () => {
  it.each([
    ['is written', () => touch('ready')],
    [
      'is moved there',
      async () => {
        await touch('draft');
        await rename(join(dir, 'draft'), join(dir, 'ready'));
      },
    ],
    ['is a symlink that leads nowhere', () => symlink('/nowhere', join(dir, 'ready'))],
  ])('leads to a look when it %s', async (_, make) => {
    const { hints, looked } = begin();
    hints.awaited('pod/main', join(dir, 'ready'));
    await watched(1);
    await make();
    await until(() => looked.includes('pod/main'), 'a look');
  });

  it('leads to a look where it came before the watch', async () => {
    await touch('ready');
    const { hints, looked } = begin();
    hints.awaited('pod/main', join(dir, 'ready'));
    await until(() => looked.length === 1, 'a look');
  });

  it('is told apart from other files of its directory', async () => {
    const { hints, looked } = begin();
    hints.awaited('pod/main', join(dir, 'ready'));
    hints.awaited('pod/other', join(dir, 'restore-context.json'));
    await watched(1);
    await touch('noise');
    await touch('restore-context.json');
    await until(() => looked.length > 0, 'a look');
    expect([...new Set(looked)]).toEqual(['pod/other']);
  });

  it('leads to a last look after it was written very often, and not to one for each time', async () => {
    const { hints, looked } = begin();
    hints.awaited('pod/main', join(dir, 'ready'));
    await watched(1);
    for (let count = 0; count < 100; count += 1) await touch('ready');
    await until(() => looked.length >= 2, 'the first and a later look');
    expect(looked.length).toBeLessThan(50);
  });

  it('is watched once, however often it is asked for', async () => {
    const { hints, looked } = begin();
    for (let count = 0; count < 10; count += 1) hints.awaited('pod/main', join(dir, 'ready'));
    await watched(1);
    await touch('ready');
    await until(() => looked.length > 0, 'a look');
    expect(watches()).toBe(1);
  });

  it('gives way to another file of the same key', async () => {
    const { hints, looked } = begin();
    await mkdir(join(dir, 'next'));
    hints.awaited('pod/main', join(dir, 'ready'));
    await watched(1);
    hints.awaited('pod/main', join(dir, 'next', 'ready'));
    await touch('ready');
    await watched(1);
    await touch('next/ready');
    await until(() => looked.length > 0, 'a look');
  });
});

describe('a watch', () => {
  it('ends when nobody waits any more, and leaves those of others', async () => {
    const { hints, looked } = begin();
    await mkdir(join(dir, 'other'));
    hints.awaited('pod/main', join(dir, 'ready'));
    hints.awaited('pod/same', join(dir, 'ready'));
    hints.awaited('pod/other', join(dir, 'other', 'ready'));
    await watched(2);
    hints.awaited('pod/main', undefined);
    hints.awaited('pod/other', undefined);
    await watched(1);
    await touch('ready');
    await until(() => looked.length > 0, 'a look');
    expect([...new Set(looked)]).toEqual(['pod/same']);
  });

  it('does not begin where the wait was over before it could', async () => {
    const { hints, polled } = begin();
    hints.awaited('pod/main', join(dir, 'ready'));
    hints.awaited('pod/main', undefined);
    hints.awaited('pod/late', join(dir, 'absent', 'ready'));
    await until(() => polled().length === 1, 'the later wait to be handled');
    await watched(0);
  });

  it('survives that its directory goes, and so do the others', async () => {
    await mkdir(join(dir, 'doomed'));
    const { hints, looked } = begin();
    hints.awaited('pod/doomed', join(dir, 'doomed', 'ready'));
    hints.awaited('pod/main', join(dir, 'ready'));
    await watched(2);
    await rm(join(dir, 'doomed'), { recursive: true });
    await watched(1);
    hints.awaited('pod/doomed', undefined);
    await touch('ready');
    await until(() => looked.includes('pod/main'), 'a look');
  });

  it('is one for a directory with thousands of files', async () => {
    for (let count = 0; count < 2_000; count += 1) await touch(`file-${count}`);
    const { hints, looked } = begin();
    hints.awaited('pod/main', join(dir, 'ready'));
    await watched(1);
    await touch('ready');
    await until(() => looked.length > 0, 'a look');
    expect(watches()).toBe(1);
  });

  it('ends where a workload makes noise in its directory', async () => {
    const { hints } = begin();
    hints.awaited('pod/main', join(dir, 'ready'));
    await watched(1);
    for (let count = 0; count < 1_200; count += 1) await touch(`file-${count}`);
    await watched(0);
    hints.awaited('pod/main', join(dir, 'ready'));
    expect(watches()).toBe(0);
  });

  it('gives way when there are too many: the oldest goes', async () => {
    const { hints, looked } = begin();
    for (let count = 0; count < 257; count += 1) {
      await mkdir(join(dir, `${count}`));
      hints.awaited(`pod/${count}`, join(dir, `${count}`, 'ready'));
    }
    await watched(256);
    await touch('0/ready');
    await touch('256/ready');
    await until(() => looked.length > 0, 'a look');
    expect([...new Set(looked)]).toEqual(['pod/256']);
  });

  it('ends with all others', async () => {
    const { hints } = begin();
    hints.awaited('pod/main', join(dir, 'ready'));
    await watched(1);
    hints.close();
    await watched(0);
  });
});

describe('a directory that is not watched', () => {
  const makeFile = async () => {
    await touch('file');
    return join(dir, 'file', 'ready');
  };
  const makeLink = async () => {
    await mkdir(join(dir, 'real'));
    await symlink('real', join(dir, 'link'));
    return join(dir, 'link', 'ready');
  };
  const makeLinkAbove = async () => {
    await mkdir(join(dir, 'real', 'control'), { recursive: true });
    await symlink('real', join(dir, 'link'));
    return join(dir, 'link', 'control', 'ready');
  };
  it.each([
    ['is not there', () => Promise.resolve(join(dir, 'absent', 'ready')), /ENOENT/],
    ['is the root directory of a process that is gone', () => Promise.resolve('/proc/4194305/root/x/ready'), /proc/],
    ['is a file', makeFile, /ENOTDIR/],
    ['is a symlink', makeLink, /ENOTDIR|ELOOP/],
    ['is reached through a symlink', makeLinkAbove, /a symlink leads to/],
    ['has a path with dots', () => Promise.resolve(`${dir}/../${dir.split('/').at(-1)}/ready`), /a symlink leads to/],
  ])('%s: the file is polled', async (_, make, reason) => {
    const { hints, polled } = begin();
    hints.awaited('pod/main', await make());
    await until(() => polled().length === 1, 'the watch to be given up');
    expect(reasonOf(polled())).toMatch(reason);
    expect(watches()).toBe(0);
  });

  it.each(['nfs4', 'fuse.sshfs', 'autofs', 'lustre'])('lies on %s: the file is polled', async (type) => {
    const [mountTable, share] = [join(dir, 'mountinfo'), join(dir, 'with blank', 'share')];
    await mkdir(share, { recursive: true });
    const point = `${dir}/with\\040blank`;
    await writeFile(
      mountTable,
      [
        '21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw',
        `22 21 0:30 / ${point} rw - ext4 /dev/sdb1 rw`,
        `23 22 0:31 / ${point} rw - ${type} server:/share rw`,
        `24 21 0:32 / ${point}/sharedata rw - tmpfs none rw`,
      ].join('\n'),
    );
    const { hints, polled } = begin({ mountTable });
    hints.awaited('pod/main', join(share, 'ready'));
    await until(() => polled().length === 1, 'the watch to be given up');
    expect(reasonOf(polled())).toContain(`lies on ${type}`);
  });
});
