import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { failure, type Subject, scratch, start, startContainer, tidyUp, verb } from './programs.ts';

afterAll(tidyUp);

/** A process whose mount namespace stands for the agent's; `prefix` runs a command in it. */
async function startAgent(): Promise<Subject & { prefix: string[]; dir: string }> {
  const agent = await start(['unshare', '-m', '--propagation', 'private', 'sleep', 'infinity'], { comm: 'sleep' });
  return { ...agent, dir: scratch(), prefix: ['nsenter', '-t', `${agent.pid}`, '-m'] };
}

interface Mount {
  readonly id: number;
  readonly point: string;
  readonly options: string[];
  readonly propagation: string;
  readonly fstype: string;
}

/** The mounts a process sees at a place. */
function mountsAt(pid: number, point: string): Mount[] {
  return readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [before = '', after = ''] = line.split(' - ');
      const words = before.split(' ');
      return {
        id: Number(words[0]),
        point: words[4] ?? '',
        options: (words[5] ?? '').split(','),
        propagation: words.slice(6).join(' '),
        fstype: after.split(' ')[0] ?? '',
      };
    })
    .filter((mount) => mount.point === point);
}

/** What a program in the agent's namespace reads. */
const read = (agent: { prefix: string[] }, path: string) => {
  const enter = [...agent.prefix.slice(1), 'cat', path];
  return execFileSync('nsenter', enter, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
};

let agent: Awaited<ReturnType<typeof startAgent>>;
let at: string;
beforeEach(async () => {
  agent = await startAgent();
  at = join(agent.dir, 'at');
  mkdirSync(at);
});

describe('private-tmpfs', () => {
  test('is small, private, and nothing in it can be executed', async () => {
    await verb(['private-tmpfs', '--at', at, '--size', '65536'], agent);
    const [mount] = mountsAt(agent.pid, at);
    expect(mount).toMatchObject({ fstype: 'tmpfs', propagation: '' });
    expect(mount?.options).toEqual(expect.arrayContaining(['nosuid', 'nodev', 'noexec']));
    const inside = `/proc/${agent.pid}/root${at}`;
    expect(statSync(inside).mode & 0o7777).toBe(0o700);
    writeFileSync(join(inside, 'fits'), 'x'.repeat(30000));
    expect(() => writeFileSync(join(inside, 'does-not'), 'x'.repeat(65536))).toThrow('ENOSPC');
    expect(existsSync(join(at, 'fits'))).toBe(false);
  });

  test('is private below a shared mount, too', async () => {
    execFileSync('nsenter', ['-t', `${agent.pid}`, '-m', 'mount', '--make-rshared', '/']);
    await verb(['private-tmpfs', '--at', at, '--size', '65536'], agent);
    expect(mountsAt(agent.pid, at)).toEqual([expect.objectContaining({ fstype: 'tmpfs', propagation: '' })]);
  });

  test('is not put through a symlink', async () => {
    symlinkSync(at, join(agent.dir, 'link'));
    expect(await failure(['private-tmpfs', '--at', join(agent.dir, 'link'), '--size', '65536'], agent)).toMatchObject({
      step: 'open',
    });
    expect(mountsAt(agent.pid, at)).toEqual([]);
  });
});

describe('attach from the own root', () => {
  test('shows the directory and nothing of what leads out of it', async () => {
    const store = join(agent.dir, 'store');
    mkdirSync(join(store, 'artifact'), { recursive: true });
    writeFileSync(join(store, 'artifact/file'), 'content');
    symlinkSync('file', join(store, 'artifact/link'));
    const attached = await verb(['attach', '--path', store, '--at', at], agent);
    const [mount] = mountsAt(agent.pid, at);
    expect(attached).toEqual({
      mountId: mount?.id,
      fstype: mount?.fstype,
      device: expect.stringMatching(/^\d+:\d+$/),
      readOnly: false,
    });
    expect(mount?.propagation).toBe('');
    expect(mount?.options).toEqual(expect.arrayContaining(['nosuid', 'nodev', 'noexec', 'nosymfollow']));
    expect(read(agent, join(at, 'artifact/file'))).toBe('content');
    expect(() => read(agent, join(at, 'artifact/link'))).toThrow();
    expect(existsSync(join(at, 'artifact'))).toBe(false);

    expect(await verb(['detach', '--at', at], agent)).toEqual({ detached: true });
    expect(mountsAt(agent.pid, at)).toEqual([]);
    expect(await verb(['detach', '--at', at], agent)).toEqual({ detached: false });
    expect(await verb(['detach', '--at', join(at, 'missing')], agent)).toEqual({ detached: false });
  });

  test('is not recursive, and read-only where the source is', async () => {
    const store = join(agent.dir, 'store');
    mkdirSync(join(store, 'below'), { recursive: true });
    const enter = (...argv: string[]) => execFileSync('nsenter', ['-t', `${agent.pid}`, '-m', ...argv]);
    enter('mount', '-t', 'tmpfs', '-o', 'ro', 'tmpfs', join(store, 'below'));
    expect(await verb(['attach', '--path', store, '--at', at], agent)).toMatchObject({ readOnly: false });
    expect(mountsAt(agent.pid, join(at, 'below'))).toEqual([]);
    await verb(['detach', '--at', at], agent);
    expect(await verb(['attach', '--path', join(store, 'below'), '--at', at], agent)).toMatchObject({
      readOnly: true,
      fstype: 'tmpfs',
    });
  });

  test('makes only the last component, and only when told', async () => {
    const missing = join(agent.dir, 'new');
    expect(await failure(['attach', '--path', missing, '--at', at], agent)).toMatchObject({ errno: 'ENOENT' });
    expect(await failure(['attach', '--path', `${missing}/two`, '--at', at, '--create', '1'], agent)).toMatchObject({
      errno: 'ENOENT',
    });
    expect(existsSync(missing)).toBe(false);
    await verb(['attach', '--path', `${missing}/`, '--at', at, '--create', '1'], agent);
    expect(statSync(missing).mode & 0o7777).toBe(0o700);
  });

  test('refuses symlinks and what is not a directory', async () => {
    const store = join(agent.dir, 'store');
    mkdirSync(join(store, 'real'), { recursive: true });
    writeFileSync(join(store, 'file'), '');
    symlinkSync('real', join(store, 'link'));
    symlinkSync('/nowhere', join(store, 'dangling'));
    for (const path of ['link', 'link/.', 'dangling', 'dangling/new'])
      expect(await failure(['attach', '--path', join(store, path), '--at', at, '--create', '1'], agent)).toMatchObject({
        code: 'SYMLINK_REFUSED',
        errno: 'ELOOP',
      });
    expect(await failure(['attach', '--path', join(store, 'file'), '--at', at], agent)).toMatchObject({
      errno: 'ENOTDIR',
    });
    expect(await failure(['attach', '--path', '/proc/self/root', '--at', at], agent)).toMatchObject({
      code: 'SYMLINK_REFUSED',
    });
    expect(await failure(['attach', '--path', store, '--at', join(store, 'no')], agent)).toMatchObject({
      errno: 'ENOENT',
    });
    expect(mountsAt(agent.pid, at)).toEqual([]);
  });
});

describe('attach from a container', () => {
  test("reaches the container's volume, and outlives the container", async () => {
    const container = await startContainer();
    mkdirSync(join(container.volume, 'base'));
    writeFileSync(join(container.volume, 'base/file'), 'of the volume');
    await verb(['attach', '--path', '/volume/base', '--at', at, ...container.target], agent);
    container.child.kill('SIGKILL');
    await container.ended;
    expect(read(agent, join(at, 'file'))).toBe('of the volume');
    expect(mountsAt(agent.pid, at)[0]?.options).toEqual(
      expect.arrayContaining(['nosuid', 'nodev', 'noexec', 'nosymfollow']),
    );
    expect(await verb(['detach', '--at', at], agent)).toEqual({ detached: true });
  });

  test('refuses what is not on a volume, and makes nothing there', async () => {
    const container = await startContainer();
    for (const path of ['/', '/plain', '/volume/..', '/volume/../plain'])
      expect(await failure(['attach', '--path', path, '--at', at, ...container.target], agent)).toMatchObject({
        code: 'NOT_A_VOLUME',
      });
    expect(
      await failure(['attach', '--path', '/new', '--at', at, '--create', '1', ...container.target], agent),
    ).toMatchObject({
      code: 'NOT_A_VOLUME',
    });
    expect(existsSync(join(container.root, 'new'))).toBe(false);
    await verb(['attach', '--path', '/volume/new', '--at', at, '--create', '1', ...container.target], agent);
    expect(existsSync(join(container.volume, 'new'))).toBe(true);
  });

  test("never follows a symlink, neither to the host's files nor within the container", async () => {
    const container = await startContainer();
    const outside = scratch();
    symlinkSync(outside, join(container.volume, 'absolute'));
    symlinkSync('../../../../../../tmp', join(container.volume, 'relative'));
    symlinkSync('/volume', join(container.root, 'alias'));
    symlinkSync('/proc/1/root', join(container.volume, 'magic'));
    for (const path of [
      '/volume/absolute',
      '/volume/relative',
      '/volume/absolute/new',
      '/alias',
      '/alias/new',
      '/volume/magic',
    ])
      expect(
        await failure(['attach', '--path', path, '--at', at, '--create', '1', ...container.target], agent),
        path,
      ).toMatchObject({ code: 'SYMLINK_REFUSED', errno: 'ELOOP' });
    expect(existsSync(join(outside, 'new'))).toBe(false);
    expect(mountsAt(agent.pid, at)).toEqual([]);
  });

  test("stays in the container's root, whatever the path says", async () => {
    const container = await startContainer();
    const outside = scratch();
    writeFileSync(join(outside, 'secret'), '');
    const path = `/volume/../../../../../..${outside}`;
    expect(await failure(['attach', '--path', path, '--at', at, ...container.target], agent)).toMatchObject({
      errno: 'ENOENT',
    });
  });
});
