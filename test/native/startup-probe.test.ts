import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DEFAULT_CONTROL_DIR, SENTINELS } from '../../contract/keys.ts';
import { restoredStartupProbe } from '../../contract/probes.ts';

/** The probe of a worker that has none, asked as kubelet asks it: by a new process in the container's namespaces. */
let directory: string;
let container: ChildProcess;
/** Of process 1, on this machine. */
let pid: number;

const SCRIPT = restoredStartupProbe({ name: 'main' }, 1).exec?.command?.[2] ?? '';
const sentinel = () => join(directory, SENTINELS.restored);

/** Process 1 runs a shell script, which is told to go on by a line of input; `$d` is a directory that is not the control directory. */
async function start(script: string): Promise<void> {
  const argv = ['--pid', '--fork', '--kill-child', '--mount-proc', 'bash', '-c', `echo up; ${script}`];
  container = spawn('unshare', argv, { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(container.stdout ?? expect.fail('no output'), 'data');
  pid = childOf(container.pid ?? 0);
}

/** The only child of a process. Never 0, to which a signal would be one to ourselves. */
function childOf(parent: number): number {
  const child = Number(readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').trim());
  return child > 0 ? child : expect.fail(`process ${parent} has no child`);
}

/** Lets process 1 go on, until it says that it has. */
async function goOn(): Promise<void> {
  const said = once(container.stdout ?? expect.fail('no output'), 'data');
  container.stdin?.write('\n');
  await said;
}

const probe = (shell: readonly string[]): Promise<boolean> =>
  new Promise((done) => {
    const script = SCRIPT.replaceAll(DEFAULT_CONTROL_DIR, directory);
    const argv = ['--target', String(pid), '--pid', '--mount', ...shell, '-c', script];
    execFile('nsenter', argv, (error) => done(error === null));
  });

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'startup-probe-'));
});
afterEach(async () => {
  const ended = once(container, 'exit');
  container.kill('SIGKILL');
  await ended;
  rmSync(directory, { recursive: true });
});

/** Between two probes the clock that a shell compares files by goes on: that of busybox in seconds. Kubelet asks once a second. */
const tick = (shell: string) => new Promise((resolve) => setTimeout(resolve, shell === 'busybox' ? 1_100 : 30));
/** Those of every machine that runs these tests, and one more where it is. */
const SHELLS = ['dash', 'bash', ...(existsSync('/bin/busybox') ? ['busybox'] : [])];
const ARMED = 'printf standby-armed >/proc/self/comm; echo armed';

describe.each(SHELLS)('in %s', (shell) => {
  const isStarted = () => probe(shell === 'busybox' ? [shell, 'sh'] : [shell]);
  /** Several probes, some time apart. */
  const waits = async () => {
    for (let turn = 0; turn < 3; turn += 1) {
      expect(await isStarted()).toBe(false);
      await tick(shell);
    }
  };

  it('a placeholder has not started, nor one whose restore is not over; then it has, and stays so', async () => {
    await start(`read -r; ${ARMED}; read -r`);
    await waits();
    await goOn();
    // With GPUs this lasts.
    expect([await isStarted(), await isStarted()]).toEqual([false, false]);
    writeFileSync(sentinel(), 'done');
    expect(await isStarted()).toBe(true);
    rmSync(sentinel());
    expect([await isStarted(), await isStarted()]).toEqual([true, true]);
  });

  it('a sentinel that came and went between two probes is not missed', async () => {
    await start(`read -r; ${ARMED}; read -r`);
    await waits();
    await goOn();
    writeFileSync(sentinel(), 'done');
    rmSync(sentinel());
    expect(await isStarted()).toBe(true);
  });

  it('nor is one that came before the first probe', async () => {
    await start(`read -r; ${ARMED}; read -r`);
    await goOn();
    writeFileSync(sentinel(), 'done');
    rmSync(sentinel());
    expect(await isStarted()).toBe(true);
  });

  it('one of an earlier container does not count', async () => {
    writeFileSync(sentinel(), 'done');
    await start(`read -r; ${ARMED}; read -r`);
    await waits();
    rmSync(sentinel());
    await waits();
    await goOn();
    expect(await isStarted()).toBe(false);
  });

  it('another process 1 stays stopped beside the restored process', async () => {
    await start('sleep 1000 & read -r; echo on; read -r');
    await goOn();
    const child = childOf(pid);
    await waits();
    // As it is halted for the restore, and the restored process not yet woken.
    process.kill(child, 'SIGSTOP');
    process.kill(pid, 'SIGSTOP');
    await waits();
    process.kill(child, 'SIGCONT');
    expect(await isStarted()).toBe(false);
    writeFileSync(sentinel(), 'done');
    rmSync(sentinel());
    expect([await isStarted(), await isStarted()]).toEqual([true, true]);
  });
});
