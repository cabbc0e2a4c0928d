import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, expect, test } from 'vitest';
import {
  childrenOf,
  failure,
  helperPath,
  scratch,
  start,
  startSubject,
  statusOf,
  subjectOf,
  tidyUp,
  until,
  verb,
} from './programs.ts';

afterAll(tidyUp);

/** Opens a pin session; `next` resolves with the next line, parsed. */
function pin(args: readonly string[]) {
  const child = spawn(helperPath, ['pin', ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ended = once(child, 'exit').then(([code]) => code as number);
  return {
    next: async () => JSON.parse(String((await lines.next()).value)) as Record<string, unknown>,
    say: (text: string) => child.stdin.write(text),
    end: () => child.stdin.end(),
    ended,
  };
}

const inode = (pid: number, name: string) => Number(/\d+/.exec(readlinkSync(`/proc/${pid}/ns/${name}`))?.[0]);

test('tells what the process is', async () => {
  const subject = await start(['unshare', '-p', '-f', '-m', 'sleep', 'infinity'], { generation: 1, comm: 'sleep' });
  const session = pin(['--pid', `${subject.pid}`]);
  const facts = await session.next();
  expect(facts).toMatchObject({ pid: subject.pid, start: subject.start, nspid: [subject.pid, 1] });
  for (const name of ['mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup', 'user'])
    expect(facts['ns']).toHaveProperty(name, inode(subject.pid, name));
  session.end();
  expect(await session.ended).toBe(0);
});

test('checks, signals, and goes on after a command that failed', async () => {
  const subject = await startSubject('record', join(scratch(), 'signals'));
  const session = pin(subject.target);
  await session.next();
  session.say('check\nche');
  expect(await session.next()).toEqual({ alive: true });
  session.say('ck\nsignal 99\nsignal -1\nnonsense "\n');
  expect(await session.next()).toEqual({ alive: true });
  for (const line of ['signal 99', 'signal -1', 'nonsense "'])
    expect(await session.next()).toMatchObject({ verb: 'pin', step: 'command', message: `unknown command: ${line}` });
  session.say(`${'x'.repeat(5000)}\ncheck\n`);
  expect(await session.next()).toMatchObject({ step: 'command', target: 'line too long' });
  expect(await session.next()).toEqual({ alive: true });
  session.say('signal 15\n');
  expect(await session.next()).toEqual({ signalled: 15 });
  expect(await session.next()).toEqual({ exited: true, status: 7 << 8 });
  expect(await session.ended).toBe(0);
  expect(await subject.ended).toEqual({ code: 7, signal: null });
});

test('tells by which signal the process ended', async () => {
  const subject = await start(['sleep', 'infinity']);
  const session = pin(subject.target);
  await session.next();
  session.say('signal 9\n');
  expect(await session.next()).toEqual({ signalled: 9 });
  expect(await session.next()).toEqual({ exited: true, status: 9 });
});

test('tells the status of a process that nobody reaps, and does not pin it', async () => {
  const fifo = join(scratch(), 'go');
  execFileSync('mkfifo', [fifo]);
  const parent = await start(['sh', '-c', `(read x < ${fifo}; exit 5) & exec sleep infinity`], { comm: 'sleep' });
  const zombie = subjectOf(await until(() => childrenOf(parent.pid)[0]));
  const session = pin(zombie.target);
  await session.next();
  writeFileSync(fifo, 'go\n');
  expect(await session.next()).toEqual({ exited: true, status: 5 << 8 });
  expect(statusOf(zombie.pid, 'State')).toContain('zombie');
  expect(await failure(['pin', ...zombie.target])).toMatchObject({ code: 'TARGET_GONE' });
});

test('notices that the process has changed a namespace', async () => {
  const subject = await startSubject('migrant');
  const before = inode(subject.pid, 'uts');
  const session = pin(subject.target);
  await session.next();
  session.say('signal 10\n');
  expect(await session.next()).toEqual({ signalled: 10 });
  await until(() => inode(subject.pid, 'uts') !== before);
  session.say('check\n');
  expect(await session.next()).toMatchObject({ code: 'TARGET_GONE', message: expect.stringContaining('uts') });
  session.end();
  expect(await session.ended).toBe(0);
});

test('signal reaches those that are still the same, and names the others', async () => {
  const [one, two, other, gone] = await Promise.all([1, 2, 3, 4].map(() => start(['sleep', 'infinity'])));
  if (!one || !two || !other || !gone) throw new Error('not started');
  gone.child.kill('SIGKILL');
  await gone.ended;
  const named = [one, two, gone].map(({ pid, start: started }) => `${pid}:${started}`);
  expect(await verb(['signal', '--sig', '15', ...named, `${other.pid}:${other.start + 1}`])).toEqual({
    sent: 2,
    gone: [gone.pid, other.pid],
  });
  expect(await one.ended).toEqual({ code: null, signal: 'SIGTERM' });
  expect(await two.ended).toEqual({ code: null, signal: 'SIGTERM' });
  expect(other.child.signalCode).toBeNull();
  expect(await verb(['signal', '--sig', '15'])).toEqual({ sent: 0, gone: [] });
});
