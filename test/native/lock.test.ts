import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { failure, helperPath, scratch, tidyUp, verb } from './programs.ts';

afterAll(tidyUp);

/** Takes a lock and keeps it until `letGo`. */
async function hold(file: string) {
  const child = spawn(helperPath, ['lock', '--file', file], { stdio: ['pipe', 'pipe', 'inherit'] });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const ended = once(child, 'exit').then(([code]) => code as number | null);
  return { said: JSON.parse(line.toString()) as unknown, child, ended };
}

test('holds a file against others until its caller lets go', async () => {
  const file = join(scratch(), 'lock');
  const { said, child, ended } = await hold(file);
  expect(said).toEqual({ locked: true });
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(await verb(['lock', '--file', file])).toEqual({ locked: false });
  child.stdin.write('not yet\n');
  expect(await verb(['lock', '--file', file])).toEqual({ locked: false });
  child.stdin.end();
  expect(await ended).toBe(0);
  const next = await hold(file);
  expect(next.said).toEqual({ locked: true });
  next.child.kill('SIGKILL');
  await next.ended;
  const last = await hold(file);
  expect(last.said).toEqual({ locked: true });
  last.child.stdin.end();
});

test('follows no symlink, and takes nothing but a file', async () => {
  const top = scratch();
  writeFileSync(join(top, 'real'), '');
  symlinkSync(join(top, 'real'), join(top, 'link'));
  mkdirSync(join(top, 'directory'));
  expect(await failure(['lock', '--file', join(top, 'link')])).toMatchObject({ step: 'open', errno: 'ELOOP' });
  expect(await failure(['lock', '--file', join(top, 'directory')])).toMatchObject({ step: 'open', errno: 'EISDIR' });
});
