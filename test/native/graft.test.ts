import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { failure, startContainer, tidyUp, verb } from './programs.ts';

afterAll(tidyUp);

type Container = Awaited<ReturnType<typeof startContainer>>;

let from: Container;
let into: Container;
beforeEach(async () => {
  [from, into] = [await startContainer(), await startContainer()];
});

const enter = (container: Container, ...argv: readonly string[]) =>
  execFileSync('nsenter', ['-t', `${container.pid}`, '-m', ...argv], { encoding: 'utf8' });
const mounts = (container: Container) =>
  readFileSync(`/proc/${container.pid}/mountinfo`, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => line.split(' ')[4]);
const intoOf = ({ pid, start }: Container) => ['--into', `${pid}:${start}`];

/** A device node in both containers: mounted in the one, an empty file in the other. */
function prepare(name: string): string {
  for (const { root } of [from, into]) writeFileSync(join(root, 'plain', name), '');
  execFileSync('mknod', [join(from.volume, name), 'c', '1', '5']);
  enter(from, 'mount', '--bind', `/volume/${name}`, `/plain/${name}`);
  return `/plain/${name}`;
}

describe('graft', () => {
  test('mounts device nodes of the one container at the same places of the other', async () => {
    const paths = [prepare('zero0'), prepare('zero1')];
    expect(await verb(['graft', ...from.target, ...intoOf(into), ...paths])).toEqual({ grafted: 2 });
    for (const path of paths) {
      expect(enter(into, 'head', '-c', '3', path)).toBe('\0\0\0');
      expect(enter(into, 'stat', '-c', '%F', path)).toBe('character special file\n');
    }
    expect(mounts(into)).toEqual(expect.arrayContaining(paths));
    expect(mounts(from).filter((point) => point === paths[0])).toHaveLength(1);
  });

  test('without paths does nothing', async () => {
    expect(await verb(['graft', ...from.target, ...intoOf(into)])).toEqual({ grafted: 0 });
  });

  test.each([
    ['a file', (path: string) => writeFileSync(path, 'secret')],
    ['a directory', (path: string) => mkdirSync(path)],
  ])('refuses %s: nothing but devices leads from one container into another', async (_, make) => {
    make(join(from.root, 'plain/other'));
    writeFileSync(join(into.root, 'plain/other'), '');
    expect(await failure(['graft', ...from.target, ...intoOf(into), '/plain/other'])).toMatchObject({
      code: 'NOT_A_DEVICE',
    });
    expect(mounts(into)).not.toContain('/plain/other');
  });

  test('follows no symlink on either side, and puts nothing where there is no place', async () => {
    const path = prepare('zero');
    symlinkSync('zero', join(from.root, 'plain/link'));
    writeFileSync(join(into.root, 'plain/link'), '');
    execFileSync('mknod', [join(from.root, 'plain/zero2'), 'c', '1', '5']);
    symlinkSync('zero', join(into.root, 'plain/zero2'));
    execFileSync('mknod', [join(from.root, 'plain/zero3'), 'c', '1', '5']);
    const before = mounts(into);
    const asked = (one: string) => failure(['graft', ...from.target, ...intoOf(into), path, one]);
    expect(await asked('/plain/link')).toMatchObject({ code: 'SYMLINK_REFUSED' });
    expect(await asked('/plain/zero2')).toMatchObject({ code: 'SYMLINK_REFUSED' });
    expect(await asked('/plain/zero3')).toMatchObject({ errno: 'ENOENT' });
    expect(mounts(into)).toEqual(before);
  });

  test('is refused for a process that is not the one meant', async () => {
    const path = prepare('zero');
    const wrong = ['--into', `${into.pid}:${into.start + 1}`];
    expect(await failure(['graft', ...from.target, ...wrong, path])).toMatchObject({ code: 'TARGET_GONE' });
  });
});
