import { execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { lowerLayer, startOverlay } from './overlay-container.ts';
import { failure, helperPath, run, scratch, statusOf, subjectOf, tidyUp, until } from './programs.ts';

const program = ['python3', resolve('test/native/fake-criu.py')];
const cgroups = ['pids', 'freezer', 'unified'].map((name) => `/sys/fs/cgroup/${name}/${basename(scratch())}`);
let lower: string;

beforeAll(() => {
  lower = lowerLayer();
  for (const cgroup of cgroups) mkdirSync(cgroup);
});

afterAll(async () => {
  await tidyUp();
  for (const cgroup of cgroups) {
    await until(() => readFileSync(join(cgroup, 'cgroup.procs'), 'utf8') === '');
    rmdirSync(cgroup);
  }
});

/** A container's standard descriptors are pipes; those of a child of Node are sockets, which cannot be opened again. */
const withPipes = [
  'python3',
  '-c',
  `import subprocess, sys
pod = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
for line in pod.stdout:
    print(line.decode(), end='', flush=True)`,
];

/** A placeholder: a container with namespaces and cgroups of its own, a tmpfs volume, stopped like one is during a restore. */
async function placeholder(prefix: readonly string[] = withPipes) {
  const started = await startOverlay(lower, {
    prefix,
    unshare: ['-u', '-i', '-n', '-C'],
    before: cgroups.map((cgroup) => `echo 0 > ${cgroup}/cgroup.procs`).join('\n'),
    setup:
      'busybox hostname placeholder; busybox mount -t tmpfs tmpfs /volume; busybox touch /volume/in; busybox mkdir /volume/deep; busybox mount -t tmpfs tmpfs /volume/deep',
  });
  let output = '';
  started.child.stdout?.on('data', (text) => (output += String(text)));
  return { ...started, output: () => output };
}

interface Report {
  pid: number;
  ppid: number;
  pdeathsig: number;
  fds: Record<string, string>;
  flags: Record<string, number>;
  ns: Record<string, string>;
  hostname: string;
  tasks: number[];
  mounts: string[];
  shared: string[];
  files: string[];
  volume: string[];
}
const readReport = (path: string) => JSON.parse(readFileSync(path, 'utf8')) as Report;
const namespaceOf = (pid: number | 'self', name: string) => readlinkSync(`/proc/${pid}/ns/${name}`);

/** The arguments of a restore, and where its outputs are. */
function restoreOf(target: readonly string[], options: readonly string[] = []) {
  const directory = scratch();
  const at = { root: join(directory, 'root'), pidfile: join(directory, 'pid'), report: join(directory, 'report') };
  const args = ['--cgroup-root', '/sys/fs/cgroup', '--root-at', at.root, '--pidfile', at.pidfile, ...options];
  return { ...at, args: ['restore', ...target, ...args, '--', ...program, at.report] };
}

test('runs the program in the pod, with the files of the caller, and says what was restored', async () => {
  const pod = await placeholder();
  process.kill(pod.pid, 'SIGSTOP');
  const call = restoreOf(pod.target, ['--fd', '9=net', '--fd', '7=stdout', '--fd', '6=stdin']);
  const result = await run([helperPath, ...call.args, 'restore', call.pidfile, call.root]);
  expect(result).toMatchObject({ code: 0, stderr: 'not for the caller to parse\n' });
  const report = readReport(call.report);
  const name = (ns: string) => namespaceOf(pod.pid, ns);
  expect(report.ns).toMatchObject({
    net: name('net'),
    uts: name('uts'),
    ipc: name('ipc'),
    pid: name('pid'),
    cgroup: name('cgroup'),
  });
  expect(report.ns['mnt']).not.toBe(name('mnt'));
  expect(report.ns['mnt']).not.toBe(namespaceOf('self', 'mnt'));
  expect(report.ns['user']).toBe(namespaceOf('self', 'user'));
  expect(report.hostname).toBe('placeholder');
  // The program is the child itself, sees the pod's processes, and dies with the helper.
  expect(report.tasks).toEqual([1, report.pid]);
  expect(report).toMatchObject({ ppid: 0, pdeathsig: 9 });
  // Exactly these descriptors, and where the pod's own lead.
  expect(
    Object.keys(report.fds)
      .map(Number)
      .sort((a, b) => a - b),
  ).toEqual([0, 1, 2, 6, 7, 9]);
  expect(report.fds).toMatchObject({
    6: readlinkSync(`/proc/${pod.pid}/fd/0`),
    7: readlinkSync(`/proc/${pod.pid}/fd/1`),
    9: name('net'),
  });
  expect(report.flags).toMatchObject({ 6: expect.any(Number), 7: expect.any(Number) });
  const [NONBLOCK, CLOEXEC] = [0o4000, 0o2000000];
  for (const flags of Object.values(report.flags)) expect(flags & (NONBLOCK | CLOEXEC)).toBe(0);
  expect([(report.flags[6] ?? 0) & 3, (report.flags[7] ?? 0) & 3]).toEqual([0, 1]);
  await until(() => pod.output() === 'through 7\n');
  // The whole mount tree of the pod, nothing of it shared with anybody.
  expect(report.mounts).toEqual(['', '/proc', '/volume', '/volume/deep']);
  expect(report.shared).toEqual([]);
  expect(report.files).toEqual(readdirSync(pod.root).sort());
  expect(report.volume).toEqual(['deep', 'in']);
  expect(readdirSync(call.root)).toEqual([]);

  const found = JSON.parse(result.stdout) as { pid: number; start: number; inner: number };
  expect(found).toEqual({
    pid: expect.any(Number),
    start: subjectOf(found.pid).start,
    inner: Number(readFileSync(call.pidfile, 'utf8')),
  });
  expect(statusOf(found.pid, 'NSpid').split('\t')).toEqual([`${found.pid}`, `${found.inner}`, '1']);
  expect(namespaceOf(found.pid, 'pid')).not.toBe(name('pid'));
  const joined = readFileSync(`/proc/${found.pid}/cgroup`, 'utf8');
  expect(joined).toBe(readFileSync(`/proc/${pod.pid}/cgroup`, 'utf8'));
  for (const cgroup of cgroups) expect(joined).toContain(`:/${basename(cgroup)}\n`);
  // The helper was the only one that moved.
  expect(readFileSync('/proc/self/cgroup', 'utf8')).not.toContain(basename(cgroups[0] ?? ''));
  process.kill(found.pid, 'SIGKILL');
});

test('leaves the IPC namespace alone with --private-ipc, and finds the second restored process beside the first', async () => {
  const pod = await placeholder();
  const found = [];
  for (let i = 0; i < 2; i++) {
    const call = restoreOf(pod.target, ['--private-ipc', '1']);
    const result = await run([helperPath, ...call.args, 'restore', call.pidfile, call.root]);
    expect(result.code, result.stderr).toBe(0);
    const report = readReport(call.report);
    expect(report.ns['ipc']).toBe(namespaceOf('self', 'ipc'));
    expect(report.ns['uts']).toBe(namespaceOf(pod.pid, 'uts'));
    expect(Object.keys(report.fds)).toEqual(['0', '1', '2']);
    found.push(JSON.parse(result.stdout) as { pid: number; inner: number });
  }
  expect(new Set(found.map(({ pid }) => pid)).size).toBe(2);
  for (const { pid } of found) process.kill(pid, 'SIGKILL');
});

test('hands over a terminal, for reading and writing, without taking it as its own', async () => {
  const pty = ['python3', '-c', 'import pty,sys; sys.exit(pty.spawn(sys.argv[1:]))'];
  const pod = await placeholder(pty);
  const tty = readlinkSync(`/proc/${pod.pid}/fd/0`);
  expect(tty).toMatch(/^\/dev\/pts\/\d+$/);
  const call = restoreOf(pod.target, ['--fd', '11=tty']);
  const result = await run([helperPath, ...call.args, 'restore', call.pidfile, call.root]);
  expect(result.code, result.stderr).toBe(0);
  const report = readReport(call.report);
  expect((report.flags[11] ?? 0) & 3).toBe(2);
  await until(() => pod.output().includes('through 11'));
  process.kill((JSON.parse(result.stdout) as { pid: number }).pid, 'SIGKILL');
});

test.each([
  ['its exit code', ['exit', '0'], 1],
  ['its exit code', ['exit', '1'], 1],
  ['its exit code', ['exit', '77'], 77],
  ['128 and its signal', ['kill'], 139],
])('gives back %s: %j', async (_name, mode, expected) => {
  const pod = await placeholder();
  const call = restoreOf(pod.target);
  const result = await run([helperPath, ...call.args, ...mode]);
  expect(result).toMatchObject({ code: expected, stdout: '' });
  // Exit 0 without a PID file: then the result is missing, which is the helper's own failure.
  if (mode[1] === '0')
    expect(JSON.parse(result.stderr)).toMatchObject({ verb: 'restore', step: 'read', errno: 'ENOENT' });
  else expect(result.stderr).toBe('');
});

test('what is not first of a namespace below the pod is not taken for what was restored', async () => {
  const pod = await placeholder();
  const call = restoreOf(pod.target);
  // PID 1 of the pod itself, a PID that nobody has, no PID.
  for (const [text, code] of [
    ['1', 'ROOT_NOT_FOUND'],
    ['31999', 'ROOT_NOT_FOUND'],
    ['-1', undefined],
    ['', undefined],
  ]) {
    const write = ['sh', '-c', `printf '%s' '${text}' > ${call.pidfile}`];
    const result = await run([helperPath, ...call.args.slice(0, call.args.indexOf('--') + 1), ...write]);
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect((JSON.parse(result.stderr) as { code?: string }).code).toBe(code);
    execFileSync('rm', [call.pidfile]);
  }
});

test('fails with 125 before the program runs', async () => {
  const pod = await placeholder();
  const refused = async (args: readonly string[], line: object) => {
    const result = await run([helperPath, ...args]);
    expect(result).toMatchObject({ code: 125, stdout: '' });
    expect(JSON.parse(result.stderr)).toMatchObject({ verb: 'restore', ...line });
  };
  const recycled = restoreOf(['--pid', `${pod.pid}`, '--start', `${pod.start + 1}`]);
  await refused([...recycled.args, 'exit', '0'], { code: 'TARGET_GONE' });
  expect(existsSync(recycled.report)).toBe(false);
  const stale = restoreOf(pod.target);
  writeFileSync(stale.pidfile, '1');
  await refused([...stale.args, 'exit', '0'], { step: 'pidfile', errno: 'EEXIST' });
  const elsewhere = restoreOf(pod.target);
  const args = elsewhere.args.map((arg) => (arg === '/sys/fs/cgroup' ? scratch() : arg));
  await refused([...args, 'exit', '0'], { step: 'join cgroup', errno: 'ENOENT' });
  const missing = restoreOf(pod.target);
  const until = missing.args.indexOf('--') + 1;
  await refused([...missing.args.slice(0, until), '/no/such/program'], { step: 'exec', errno: 'ENOENT' });
  await refused([...missing.args.slice(0, until), 'no-such-program'], { step: 'exec', errno: 'ENOENT' });
});

test.each([
  ['--fd', '2=net'],
  ['--fd', '9=everything'],
  ['--fd', '512=net'],
  ['--fd', 'x=net'],
  ['--fd', '9'],
])('usage: %s %s', async (...option) => {
  const call = restoreOf(['--pid', '1', '--start', '1'], option);
  expect((await run([helperPath, ...call.args, 'exit', '0'])).code).toBe(2);
});

test.each(['restore', 'dump'])('%s and its program die with the parent', async (name) => {
  const pod = await placeholder();
  const call = restoreOf(pod.target);
  const args = name === 'restore' ? call.args : ['dump', ...pod.target, '--', ...program, call.report];
  // The shell is the agent here; it waits, so that it is the parent.
  const shell = spawn('sh', ['-c', '"$@"; :', 'sh', helperPath, ...args, 'wait'], { stdio: 'ignore' });
  await until(() => existsSync(call.report));
  const hostPids = execFileSync('pgrep', ['-f', call.report], { encoding: 'utf8' }).trim().split('\n').map(Number);
  const others = hostPids.filter((pid) => pid !== shell.pid);
  expect(others).toHaveLength(name === 'restore' ? 2 : 1);
  shell.kill('SIGKILL');
  await until(() => others.every((pid) => ['', 'Z (zombie)'].includes(statusOf(pid, 'State'))));
});

test('dump joins what it is told to, becomes the program, and gives its status', async () => {
  const pod = await placeholder();
  for (const join of [[], ['ipc'], ['uts', 'ipc']]) {
    const report = join.join('-');
    const path = `${scratch()}/${report}report`;
    const option = join.length > 0 ? ['--join', join.join(',')] : [];
    const result = await run([helperPath, 'dump', ...pod.target, ...option, '--', ...program, path, 'exit', '5']);
    expect(result).toMatchObject({ code: 5, stdout: '', stderr: '' });
    const { ns, fds, pdeathsig } = readReport(path);
    for (const name of ['ipc', 'uts', 'net', 'mnt', 'pid', 'cgroup'])
      expect(ns[name], name).toBe(namespaceOf(join.includes(name) ? pod.pid : 'self', name));
    expect(Object.keys(fds)).toEqual(['0', '1', '2']);
    expect(pdeathsig).toBe(9);
  }
});

test('dump refuses another process, other namespaces, and a program that is not there', async () => {
  const pod = await placeholder();
  const recycled = ['--pid', `${pod.pid}`, '--start', '1'];
  expect(await failure(['dump', ...recycled, '--', 'true'])).toMatchObject({ code: 'TARGET_GONE' });
  expect(await failure(['dump', ...pod.target, '--', '/no/such/program'])).toMatchObject({
    step: 'exec',
    errno: 'ENOENT',
  });
  for (const join of ['net', 'ipc,', ',ipc', 'ipcuts', 'ipc uts'])
    expect((await run([helperPath, 'dump', ...pod.target, '--join', join, '--', 'true'])).code).toBe(2);
  expect((await run([helperPath, 'dump', ...pod.target, '--'])).code).toBe(2);
  expect(statSync(`/proc/${pod.pid}`).isDirectory()).toBe(true);
});
