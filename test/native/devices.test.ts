import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { failure, startContainer, tidyUp, verb } from './programs.ts';

afterAll(tidyUp);

interface Device {
  readonly path: string;
  readonly type: string;
  readonly major?: number;
  readonly minor?: number;
}

/** Majors that the kernel keeps for experiments: nobody answers an open of such a node, and nothing here opens one. */
const MAJOR = 240;
const OTHER = 241;

let container: Awaited<ReturnType<typeof startContainer>>;
let dev: string;
beforeEach(async () => {
  container = await startContainer();
  dev = join(container.root, 'dev');
  sh('mkdir', dev);
});

const sh = (program: string, ...args: readonly string[]) => execFileSync(program, args, { stdio: 'pipe' });
const node = (name: string, minor: number, major = MAJOR, type = 'c') =>
  sh('mknod', join(dev, name), type, `${major}`, `${minor}`);
/** Runs a command in the mount namespace of the container, as what made it does. */
const inside = (script: string) => sh('nsenter', '-t', `${container.pid}`, '-m', 'sh', '-ec', script);
const args = (dir = '/dev') => ['devices', ...container.target, '--dir', dir, '--prefix', 'gpu', '--major', `${MAJOR}`];

async function devices(dir?: string): Promise<Device[]> {
  const { dir: isThere, devices: found } = await verb(args(dir));
  expect(isThere).toBe(true);
  return (found as Device[]).sort((a, b) => (a.path < b.path ? -1 : 1));
}

describe('devices', () => {
  test('are found by their number, whatever they are called', async () => {
    node('gpu0', 0);
    node('renamed', 3);
    node('gpu-ctl', 255);
    node('null', 3, 1);
    node('disk', 0, MAJOR, 'b');
    expect(await devices()).toEqual([
      { path: 'gpu-ctl', type: 'char', major: MAJOR, minor: 255 },
      { path: 'gpu0', type: 'char', major: MAJOR, minor: 0 },
      { path: 'renamed', type: 'char', major: MAJOR, minor: 3 },
    ]);
  });

  test('of several majors are found, in large minors too', async () => {
    node('a', 1_048_575);
    node('b', 7, OTHER);
    const found = await verb([...args(), '--major', `${OTHER}`]);
    expect(found['devices']).toHaveLength(2);
    expect(found['devices']).toContainEqual({ path: 'a', type: 'char', major: MAJOR, minor: 1_048_575 });
    expect(found['devices']).toContainEqual({ path: 'b', type: 'char', major: OTHER, minor: 7 });
  });

  test('are told from what only has their name', async () => {
    node('gpu0', 0, OTHER);
    node('gpu1', 0, 7, 'b');
    sh('touch', join(dev, 'gpu2'));
    sh('ln', '-s', '/etc/passwd', join(dev, 'gpu3'));
    sh('mkfifo', join(dev, 'gpu4'));
    expect(await devices()).toEqual([
      { path: 'gpu0', type: 'char', major: OTHER, minor: 0 },
      { path: 'gpu1', type: 'block', major: 7, minor: 0 },
      { path: 'gpu2', type: 'file' },
      { path: 'gpu3', type: 'symlink' },
      { path: 'gpu4', type: 'fifo' },
    ]);
  });

  test('are what is mounted there, not what lies below', async () => {
    sh('touch', join(dev, 'gpu0'), join(dev, 'gpu1'), join(dev, 'plain'));
    sh('mknod', join(container.volume, 'node'), 'c', `${MAJOR}`, '5');
    sh('touch', join(container.volume, 'file'));
    node('hidden', 1);
    inside(
      'mount --bind /volume/node /dev/gpu0; mount --bind /volume/file /dev/hidden; mount --bind /volume/node /dev/plain',
    );
    expect(await devices()).toEqual([
      { path: 'gpu0', type: 'char', major: MAJOR, minor: 5 },
      { path: 'gpu1', type: 'file' },
      { path: 'plain', type: 'char', major: MAJOR, minor: 5 },
    ]);
  });

  test('are looked for in directories with their name, and in no other', async () => {
    sh('mkdir', '-p', join(dev, 'gpu-caps/gpu-deeper'), join(dev, 'shm'));
    node('gpu-caps/cap1', 1);
    node('gpu-caps/gpu-deeper/cap2', 2);
    node('shm/planted', 3);
    sh('ln', '-s', '../shm', join(dev, 'gpu-link'));
    expect(await devices()).toEqual([
      { path: 'gpu-caps/cap1', type: 'char', major: MAJOR, minor: 1 },
      { path: 'gpu-link', type: 'symlink' },
    ]);
  });

  test('have names that nobody has vouched for', async () => {
    sh('touch', join(dev, 'gpu"\n\\'));
    expect(await devices()).toEqual([{ path: 'gpu"\n\\', type: 'file' }]);
  });

  test('are none where there is no such directory', async () => {
    expect(await verb(args('/nowhere'))).toEqual({ dir: false, devices: [] });
    sh('touch', join(container.root, 'file'));
    expect(await verb(args('/file'))).toEqual({ dir: false, devices: [] });
    expect(await devices('/dev')).toEqual([]);
  });
});

describe('a hostile container', () => {
  test('does not lead out of itself with a symlink', async () => {
    sh('ln', '-s', '/dev', join(container.root, 'link'));
    expect(await failure(args('/link'))).toMatchObject({ code: 'SYMLINK_REFUSED', errno: 'ELOOP' });
    sh('ln', '-s', '..', join(container.root, 'up'));
    expect(await failure(args('/up/dev'))).toMatchObject({ code: 'SYMLINK_REFUSED' });
  });

  test('does not lead out of itself with dots', async () => {
    node('gpu0', 0);
    expect(await devices('/../../../dev')).toEqual([{ path: 'gpu0', type: 'char', major: MAJOR, minor: 0 }]);
  });

  test('does not make the helper print without end', async () => {
    sh('sh', '-ec', `cd "${dev}"; seq -f 'gpu%g' 4096 | xargs touch`);
    expect(await devices()).toHaveLength(4096);
    sh('touch', join(dev, 'gpu0'));
    expect(await failure(args())).toMatchObject({ code: 'TOO_MANY_DEVICES' });
  });

  test('does not make the helper look without end', async () => {
    sh('sh', '-ec', `cd "${dev}"; seq -f 'other%g' 65537 | xargs touch`);
    expect(await failure(args())).toMatchObject({ code: 'TOO_MANY_DEVICES' });
  });
});
