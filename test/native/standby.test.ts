import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  childrenOf,
  commOf,
  type StartOptions,
  type Subject,
  scratch,
  standbyPath,
  start,
  statusOf,
  subjectOf,
  subjectPath,
  tidyUp,
  until,
  verb,
} from './programs.ts';

afterAll(tidyUp);

const ARMING_SIGNAL = 40;
const NAME = 'snapshot-standb';
const has = (mask: string, signal: number) => ((BigInt(`0x${mask || '0'}`) >> BigInt(signal - 1)) & 1n) === 1n;
const waits = (pid: number) => has(statusOf(pid, 'SigCgt'), ARMING_SIGNAL) && statusOf(pid, 'State').startsWith('S');

/** Starts the standby as PID 1 of a PID namespace, and waits until it waits. */
async function startStandby(options: StartOptions = {}): Promise<Subject> {
  const subject = await start(['unshare', '-p', '-f', '--', standbyPath], { generation: 1, comm: NAME, ...options });
  await until(() => waits(subject.pid));
  return subject;
}

/** Starts a command as an orphan in the standby's PID namespace, so that the standby is its parent. Returns its PID there and here. */
async function adopt(standby: Subject, command: string): Promise<{ inner: number; outer: number }> {
  const script = `${command} >/dev/null 2>&1 </dev/null & echo $!`;
  const inner = Number(
    execFileSync('nsenter', ['-t', `${standby.pid}`, '-p', 'sh', '-c', script], { encoding: 'utf8' }),
  );
  const outer = await until(() => childrenOf(standby.pid).find((pid) => statusOf(pid, 'NSpid').endsWith(`\t${inner}`)));
  return { inner, outer };
}

const arm = (standby: Subject, inner: number) => verb(['arm', ...standby.target, '--inner', `${inner}`]);

describe('before it is armed', () => {
  test.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
    ['SIGQUIT', 131],
  ] as const)('%s ends it with %i', async (signal, code) => {
    const standby = await startStandby();
    process.kill(standby.pid, signal);
    expect(await standby.ended).toEqual({ code, signal: null });
  });

  test('it ends so, too, when it is not PID 1', async () => {
    const standby = await start([standbyPath], { comm: NAME });
    await until(() => waits(standby.pid));
    process.kill(standby.pid, 'SIGTERM');
    expect(await standby.ended).toEqual({ code: 143, signal: null });
  });

  test('every other signal is ignored, also the arming one without a value', async () => {
    const standby = await startStandby();
    for (const signal of [
      'SIGHUP',
      'SIGUSR1',
      'SIGUSR2',
      'SIGALRM',
      'SIGPIPE',
      'SIGCONT',
      'SIGTSTP',
      'SIGWINCH',
    ] as const)
      process.kill(standby.pid, signal);
    for (const signal of [32, 33, 34, ARMING_SIGNAL, 64]) process.kill(standby.pid, signal);
    await until(() => /^0+$/.test(statusOf(standby.pid, 'ShdPnd')));
    expect(commOf(standby.pid)).toBe(NAME);
    expect(standby.child.exitCode).toBeNull();
  });

  test('arming from the same PID namespace is not accepted', async () => {
    const standby = await start([standbyPath], { comm: NAME });
    await until(() => waits(standby.pid));
    expect(await arm(standby, standby.pid + 1)).toEqual({ armed: false });
    expect(commOf(standby.pid)).toBe(NAME);
  });

  test('orphans are reaped', async () => {
    const standby = await startStandby();
    const { outer } = await adopt(standby, 'sleep 1000');
    process.kill(outer, 'SIGKILL');
    await until(() => !existsSync(`/proc/${outer}`));
    expect(standby.child.exitCode).toBeNull();
  });

  test('orphans are reaped even if SIGCHLD was ignored by who started it', async () => {
    const ignoring = [
      'python3',
      '-c',
      'import os,signal,sys; signal.signal(17, 1); os.execv(sys.argv[1], sys.argv[1:])',
    ];
    const standby = await startStandbyBy(ignoring);
    const fifo = join(scratch(), 'go');
    execFileSync('mkfifo', [fifo]);
    const { inner, outer } = await adopt(standby, `sh -c 'read x < ${fifo}; exit 11'`);
    writeFileSync(fifo, 'go\n');
    await until(() => !existsSync(`/proc/${outer}`));
    expect(await arm(standby, inner).catch(() => ({ armed: true }))).toEqual({ armed: true });
    expect(await standby.ended).toEqual({ code: 11, signal: null });
  });
});

/** Starts the standby through another program, as PID 1. */
async function startStandbyBy(argv: readonly string[]): Promise<Subject> {
  const subject = await start(['unshare', '-p', '-f', '--', ...argv, standbyPath], { generation: 1, comm: NAME });
  await until(() => waits(subject.pid));
  return subject;
}

describe('armed', () => {
  test('it says so by its name, and ends with the exit code of the process it stands for', async () => {
    const standby = await startStandby();
    const fifo = join(scratch(), 'go');
    execFileSync('mkfifo', [fifo]);
    const other = await adopt(standby, 'sleep 1000');
    const { inner } = await adopt(standby, `sh -c 'read x < ${fifo}; exit 9'`);
    expect(await arm(standby, inner)).toEqual({ armed: true });
    expect(commOf(standby.pid)).toBe('standby-armed');
    process.kill(other.outer, 'SIGKILL');
    await until(() => !existsSync(`/proc/${other.outer}`));
    expect(standby.child.exitCode).toBeNull();
    writeFileSync(fifo, 'go\n');
    expect(await standby.ended).toEqual({ code: 9, signal: null });
  });

  test.each([
    ['SIGKILL', 137],
    ['SIGSEGV', 139],
  ] as const)('it ends with 128 and the signal that ended the process: %s', async (signal, code) => {
    const standby = await startStandby();
    const { inner, outer } = await adopt(standby, 'sleep 1000');
    await arm(standby, inner);
    process.kill(outer, signal);
    expect(await standby.ended).toEqual({ code, signal: null });
  });

  test('it forwards every signal that can be caught, and ends when the process does', async () => {
    const standby = await startStandby();
    const file = join(scratch(), 'signals');
    const { inner, outer } = await adopt(standby, `${subjectPath()} record ${file}`);
    await until(() => existsSync(file) && statusOf(outer, 'State').startsWith('S'));
    await arm(standby, inner);
    const numbers = Array.from({ length: 64 }, (_, i) => i + 1).filter((number) => ![9, 15, 17, 19].includes(number));
    // One after the other: of signals that are pending together, the kernel itself drops some (SIGCONT and the stop signals).
    const recorded = () => readFileSync(file, 'utf8').split('\n').filter(Boolean).map(Number);
    for (const [index, number] of numbers.entries()) {
      process.kill(standby.pid, number);
      await until(() => recorded().length > index);
    }
    expect(recorded()).toEqual(numbers);
    process.kill(standby.pid, 'SIGTERM');
    expect(await standby.ended).toEqual({ code: 7, signal: null });
    expect(readFileSync(file, 'utf8')).toMatch(/\n15\n$/);
  });

  test('with a process that has already ended, it ends as that did', async () => {
    const standby = await startStandby();
    const { inner, outer } = await adopt(standby, 'sleep 1000');
    process.kill(outer, 'SIGUSR2');
    await until(() => !existsSync(`/proc/${outer}`));
    await arm(standby, inner).catch(() => undefined);
    expect(await standby.ended).toEqual({ code: 128 + 12, signal: null });
  });

  test('with a process that never was, it ends with 137', async () => {
    const standby = await startStandby();
    await arm(standby, 4000000).catch(() => undefined);
    expect(await standby.ended).toEqual({ code: 137, signal: null });
  });

  test('it stays with the first process it was armed with', async () => {
    const standby = await startStandby();
    const first = await adopt(standby, 'sleep 1000');
    const second = await adopt(standby, 'sleep 1000');
    await arm(standby, first.inner);
    await arm(standby, second.inner);
    process.kill(second.outer, 'SIGKILL');
    await until(() => !existsSync(`/proc/${second.outer}`));
    expect(standby.child.exitCode).toBeNull();
    process.kill(first.outer, 'SIGTERM');
    expect(await standby.ended).toEqual({ code: 143, signal: null });
  });

  test('it notices a process that another parent reaped', async () => {
    const standby = await startStandby();
    const script = 'sleep 1000 >/dev/null & echo $!; wait';
    const parent = await start(['nsenter', '-t', `${standby.pid}`, '-p', 'sh', '-c', script], {
      ready: true,
      generation: 1,
      comm: 'sh',
    });
    const outer = await until(() => childrenOf(parent.pid)[0]);
    const inner = Number(statusOf(outer, 'NSpid').split('\t')[1]);
    expect(await arm(standby, inner)).toEqual({ armed: true });
    process.kill(outer, 'SIGKILL');
    expect(await standby.ended).toEqual({ code: 137, signal: null });
  });
});

test('arm does not send to what is no standby', async () => {
  const sleeper = await start(['sleep', 'infinity']);
  expect(await arm(sleeper, 2)).toEqual({ armed: false });
  expect(sleeper.child.signalCode).toBeNull();
  expect(subjectOf(sleeper.pid).start).toBe(sleeper.start);
});

describe('restore-context.json', () => {
  const names = [
    'DYN_NAMESPACE',
    'DYN_COMPONENT',
    'DYN_PARENT_DGD_K8S_NAME',
    'DYN_PARENT_DGD_K8S_NAMESPACE',
    'POD_NAME',
    'POD_NAMESPACE',
    'POD_UID',
    'DYN_NAMESPACE_WORKER_SUFFIX',
    'DYN_DISCOVERY_BACKEND',
    'DYN_REQUEST_PLANE',
    'DYN_EVENT_PLANE',
    'NATS_SERVER',
    'ETCD_ENDPOINTS',
    'DYN_SYSTEM_PORT',
    'CONTAINER_NAME',
    'ENGINE_ID',
    'MODEL_EXPRESS_URL',
    'PROMETHEUS_ENDPOINT',
  ];
  const nothing = Object.fromEntries(names.map((name) => [name, null]));

  test('holds what the environment says of the pod', async () => {
    const dir = scratch();
    writeFileSync(join(dir, 'restore-context.json'), 'stale, and longer than what follows'.repeat(100));
    const env = { DYN_SNAPSHOT_CONTROL_DIR: dir, POD_NAME: 'worker "1"\n', POD_UID: '', ENGINE_ID: '7', OTHER: 'x' };
    await startStandby({ env });
    const context = JSON.parse(readFileSync(join(dir, 'restore-context.json'), 'utf8'));
    expect(context).toEqual({ env: { ...nothing, POD_NAME: 'worker "1"\n', POD_UID: '', ENGINE_ID: '7' } });
    expect(readdirSync(dir)).toEqual(['restore-context.json']);
    expect(statSync(join(dir, 'restore-context.json')).mode & 0o7777).toBe(0o644);
  });

  test('replaces a planted symlink instead of following it', async () => {
    const dir = scratch();
    const precious = join(scratch(), 'precious');
    writeFileSync(precious, 'untouched');
    symlinkSync(precious, join(dir, 'restore-context.json'));
    await startStandby({ env: { DYN_SNAPSHOT_CONTROL_DIR: dir } });
    expect(readFileSync(precious, 'utf8')).toBe('untouched');
    expect(JSON.parse(readFileSync(join(dir, 'restore-context.json'), 'utf8'))).toEqual({ env: nothing });
  });

  test('is not needed: no directory, or none that may be written', async () => {
    const dir = scratch();
    mkdirSync(join(dir, 'closed'));
    chmodSync(join(dir, 'closed'), 0o555);
    chmodSync(dir, 0o755);
    for (const path of [join(dir, 'missing'), join(dir, 'closed')]) {
      const standby = await start([standbyPath], { comm: NAME, uid: 65534, env: { DYN_SNAPSHOT_CONTROL_DIR: path } });
      await until(() => waits(standby.pid));
      process.kill(standby.pid, 'SIGTERM');
      expect(await standby.ended).toEqual({ code: 143, signal: null });
    }
    expect(readdirSync(join(dir, 'closed'))).toEqual([]);
  });
});
