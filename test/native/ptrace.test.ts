import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { childrenOf, failure, type Subject, start, startSubject, statusOf, tidyUp, until, verb } from './programs.ts';

afterAll(tidyUp);

const threadsOf = (pid: number) => readdirSync(`/proc/${pid}/task`).map(Number);
const maskHas = (mask: string, signal: number) => (BigInt(`0x${mask}`) & (1n << BigInt(signal - 1))) !== 0n;

/** Whether the process runs on, untraced and in none but its own state. */
function expectUntouched(subject: Subject, state: RegExp): void {
  for (const thread of threadsOf(subject.pid)) {
    expect(statusOf(thread, 'TracerPid')).toBe('0');
    expect(statusOf(thread, 'State')).toMatch(state);
  }
  expect(subject.child.exitCode).toBeNull();
  expect(subject.child.signalCode).toBeNull();
}

/** Stops the process as a terminal or an operator would, and waits until it is. */
async function stop(subject: Subject): Promise<void> {
  process.kill(subject.pid, 'SIGSTOP');
  await until(() => threadsOf(subject.pid).every((thread) => statusOf(thread, 'State').startsWith('T')));
}

describe('seccomp', () => {
  test('gives the filters, oldest first', async () => {
    const subject = await startSubject('filters');
    const { mode, filters } = (await verb(['seccomp', ...subject.target])) as { mode: number; filters: string[] };
    expect(mode).toBe(2);
    // The second instruction compares the number of the system call: ptrace was refused first, then mount.
    const refused = filters.map((hex) => Buffer.from(hex, 'hex').readUInt32LE(8 + 4));
    expect(refused).toEqual([101, 165]);
    expect(filters.map((hex) => hex.length / 16)).toEqual([4, 4]);
    expectUntouched(subject, /^S/);
  });

  test('says that there is none, and leaves a stopped process stopped', async () => {
    const subject = await start(['sleep', 'infinity']);
    await stop(subject);
    expect(await verb(['seccomp', ...subject.target])).toEqual({ mode: 0, filters: [] });
    await until(() => statusOf(subject.pid, 'State').startsWith('T'));
    expect(statusOf(subject.pid, 'TracerPid')).toBe('0');
  });

  test('says so when somebody else traces the process', async () => {
    const subject = await start(['sleep', 'infinity']);
    const tracer = await start(['python3', '-c', TRACER, `${subject.pid}`], { ready: true, comm: 'python3' });
    for (const args of [['seccomp'], ['inject-exit', '--code', '1'], ['block-signal', '--sig', '15']]) {
      const [name = '', ...rest] = args;
      expect(await failure([name, ...subject.target, ...rest])).toMatchObject({ step: 'ptrace', errno: 'EPERM' });
    }
    expect(statusOf(subject.pid, 'TracerPid')).toBe(`${tracer.pid}`);
  });
});

/** Seizes a process and holds it. */
const TRACER = `
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
assert libc.ptrace(0x4206, int(sys.argv[1]), None, None) == 0
print("ready", flush=True)
time.sleep(1000)`;

describe('block-signal', () => {
  test('keeps the signal pending in a process that would have died of it', async () => {
    const subject = await start(['sleep', 'infinity']);
    expect(await verb(['block-signal', ...subject.target, '--sig', '15'])).toEqual({ blocked: 15 });
    process.kill(subject.pid, 'SIGTERM');
    await until(() => maskHas(statusOf(subject.pid, 'ShdPnd'), 15));
    expectUntouched(subject, /^S/);
    expect(await verb(['block-signal', ...subject.target, '--sig', '15'])).toEqual({ blocked: 15 });
    process.kill(subject.pid, 'SIGHUP');
    expect(await subject.ended).toEqual({ code: null, signal: 'SIGHUP' });
  });

  test('reaches every thread, sleeping or running, and keeps what was blocked', async () => {
    const subject = await startSubject('threads');
    await verb(['block-signal', ...subject.target, '--sig', '10']);
    await verb(['block-signal', ...subject.target, '--sig', '15']);
    expect(threadsOf(subject.pid)).toHaveLength(4);
    for (const thread of threadsOf(subject.pid)) {
      const mask =
        readFileSync(`/proc/${subject.pid}/task/${thread}/status`, 'utf8').match(/SigBlk:\s*(\w+)/)?.[1] ?? '0';
      expect([10, 15].map((signal) => maskHas(mask, signal))).toEqual([true, true]);
    }
    process.kill(subject.pid, 'SIGTERM');
    await until(() => maskHas(statusOf(subject.pid, 'ShdPnd'), 15));
    expectUntouched(subject, /^[SR]/);
  });

  test('works on a stopped process, which stays stopped', async () => {
    const subject = await startSubject('threads');
    await stop(subject);
    await verb(['block-signal', ...subject.target, '--sig', '15']);
    await until(() => threadsOf(subject.pid).every((thread) => statusOf(thread, 'State').startsWith('T')));
    expectUntouched(subject, /^T/);
    process.kill(subject.pid, 'SIGCONT');
    process.kill(subject.pid, 'SIGTERM');
    await until(() => statusOf(subject.pid, 'State').startsWith('S') && maskHas(statusOf(subject.pid, 'ShdPnd'), 15));
  });
});

test('block-signal says so when a process waits with a mask of its own', async () => {
  const subject = await start(['sh', '-c', 'trap : USR1; sleep 1000 & while :; do wait; done']);
  const child = await until(() => childrenOf(subject.pid)[0]);
  const SIGSUSPEND = '130';
  await until(() => readFileSync(`/proc/${subject.pid}/syscall`, 'utf8').split(' ')[0] === SIGSUSPEND);
  expect(await failure(['block-signal', ...subject.target, '--sig', '15'])).toMatchObject({
    code: 'SIGNAL_NOT_BLOCKED',
  });
  expectUntouched(subject, /^[SR]/);
  process.kill(child, 'SIGKILL');
});

describe('inject-exit', () => {
  const inject = (subject: Subject, code: number) => verb(['inject-exit', ...subject.target, '--code', `${code}`]);

  test.each([0, 1, 42, 137, 255])('ends a process that sleeps in a system call, with %i', async (code) => {
    const subject = await start(['sleep', 'infinity']);
    expect(await inject(subject, code)).toEqual({ injected: code });
    expect(await subject.ended).toEqual({ code, signal: null });
    expect(existsSync(`/proc/${subject.pid}`)).toBe(false);
  });

  test('ends a process that never enters the kernel', async () => {
    const subject = await startSubject('busy');
    expect(await inject(subject, 43)).toEqual({ injected: 43 });
    expect(await subject.ended).toEqual({ code: 43, signal: null });
  });

  test('ends a shell that waits for a child', async () => {
    const subject = await start(['sh', '-c', 'sleep 1000; exit 1']);
    const child = await until(() => statusOf(subject.pid, 'State').startsWith('S') && childrenOf(subject.pid)[0]);
    expect(await inject(subject, 44)).toEqual({ injected: 44 });
    expect(await subject.ended).toEqual({ code: 44, signal: null });
    process.kill(child, 'SIGKILL');
  });

  test('ends all threads', async () => {
    const subject = await startSubject('threads');
    expect(await inject(subject, 45)).toEqual({ injected: 45 });
    expect(await subject.ended).toEqual({ code: 45, signal: null });
  });

  test('ends a process whose main thread is gone already', async () => {
    const subject = await startSubject('leaderless');
    await until(() => statusOf(subject.pid, 'State').startsWith('Z'));
    expect(await inject(subject, 46)).toEqual({ injected: 46 });
    expect(await subject.ended).toEqual({ code: 46, signal: null });
  });

  test.each(['busy', 'threads'])('ends a stopped process: %s', async (mode) => {
    const subject = await startSubject(mode);
    await stop(subject);
    expect(await inject(subject, 47)).toEqual({ injected: 47 });
    expect(await subject.ended).toEqual({ code: 47, signal: null });
  });

  test('ends a process that has the signal pending that it was made to block', async () => {
    const subject = await start(['sleep', 'infinity']);
    await verb(['block-signal', ...subject.target, '--sig', '15']);
    process.kill(subject.pid, 'SIGTERM');
    expect(await inject(subject, 48)).toEqual({ injected: 48 });
    expect(await subject.ended).toEqual({ code: 48, signal: null });
  });

  test('ends PID 1 of a PID namespace, and with it the namespace', async () => {
    const subject = await start(['unshare', '-p', '-f', 'sh', '-c', 'sleep 1000 & exec sleep infinity'], {
      generation: 1,
      comm: 'sleep',
    });
    expect(await inject(subject, 49)).toEqual({ injected: 49 });
    expect(await subject.ended).toEqual({ code: 49, signal: null });
  });
});
