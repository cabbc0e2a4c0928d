import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  buildVariant,
  checkpoint,
  devicesOf,
  GENEROUS,
  illegal,
  open,
  openSession,
  openStandin,
  startWorker,
  stateIs,
  timed,
} from './cuda-session.ts';
import { childrenOf, statusOf, tidyUp } from './programs.ts';

afterAll(tidyUp);

const MIB = 1 << 20;

/** Stops a process, and waits until the last of its threads has stopped. */
async function halt(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  const states = () => readdirSync(`/proc/${pid}/task`).map((tid) => statusOf(Number(tid), 'State').charAt(0));
  await expect.poll(() => new Set(states()), GENEROUS).toEqual(new Set(['T']));
}

describe('what cannot be done', () => {
  const nobody = { ok: false, error: 3, name: 'CUDA_ERROR_NOT_INITIALIZED', text: 'initialization error' };

  test.each(['state', 'restore-thread', 'checkpoint', 'restore', 'unlock', 'restore-unlock'])(
    'with a process that is no CUDA process: %s',
    async (request) => {
      const { session } = await open();
      expect(await session.ask(`${request} ${process.pid}`)).toMatchObject(nobody);
      expect(await session.ask(`${request} 2147483647`)).toMatchObject({ ok: false, error: 1 });
    },
  );

  test('with a forked child: it has the mappings, and no restore thread', async () => {
    const { standin, session, pid } = await open('--forked-child');
    const [child = 0] = childrenOf(pid);
    expect(devicesOf(child, standin.directory).filter((line) => line.includes('/dev/nvidia0'))).not.toEqual([]);
    expect(await session.ask(`restore-thread ${child}`)).toMatchObject(nobody);
    expect(await session.ask(`lock ${child} 1000`)).toMatchObject(nobody);
    await checkpoint(session, pid);
    expect(devicesOf(child, standin.directory)).not.toEqual([]);
  });

  test('with a process that maps devices without a restore thread', async () => {
    const { standin, session, pid } = await open('--no-restore-thread');
    expect(devicesOf(pid, standin.directory)).not.toEqual([]);
    expect(await session.ask(`restore-thread ${pid}`)).toMatchObject(nobody);
  });

  test('in time: a lock that is not taken is withdrawn, and another works', async () => {
    const { session, worker, pid } = await open();
    await halt(pid);
    const late = await session.ask(`lock ${pid} 150`);
    const notReady = { ok: false, error: 600, name: 'CUDA_ERROR_NOT_READY', text: 'device not ready' };
    expect(late).toEqual({ ...notReady, call: 'cuCheckpointProcessLock' });
    process.kill(pid, 'SIGCONT');
    await worker.next();
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('running'));
    expect(await session.ask(`lock ${pid} 10000`)).toEqual(timed);
  });

  test('for want of device memory: no restore of that process will ever succeed', async () => {
    const { standin, session, pid } = await open('--bytes', `${40 * MIB}`);
    await checkpoint(session, pid);
    const other = await startWorker(standin, '--bytes', `${40 * MIB}`);
    expect(await session.ask(`restore ${pid}`)).toMatchObject({ error: 2, name: 'CUDA_ERROR_OUT_OF_MEMORY' });
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('checkpointed'));
    other.child.kill('SIGKILL');
    await other.ended;
    expect(await session.ask(`restore ${pid}`)).toMatchObject({ error: 304, name: 'CUDA_ERROR_OPERATING_SYSTEM' });
    expect(await session.ask(`unlock ${pid}`)).toEqual(illegal('cuCheckpointProcessUnlock'));
  });

  test('with peer access: a restore fails, and the process is lost', async () => {
    const { session, pid } = await open('--peer-access');
    await checkpoint(session, pid);
    expect(await session.ask(`restore-unlock ${pid}`)).toMatchObject({
      error: 1,
      call: 'cuCheckpointProcessRestore',
    });
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('failed'));
    expect(await session.ask(`unlock ${pid}`)).toEqual(illegal('cuCheckpointProcessUnlock'));
  });

  test('with a process that ends in the middle', async () => {
    const { standin, session, worker, pid } = await open();
    await halt(pid);
    const asked = session.ask(`lock ${pid} 0`);
    await expect.poll(() => readdirSync(join(standin.directory, 'commands')), GENEROUS).not.toEqual([]);
    worker.child.kill('SIGKILL');
    expect(await asked).toMatchObject({ ok: false, error: 999, name: 'CUDA_ERROR_UNKNOWN' });
  });

  test('when the driver gives a state that nobody knows', async () => {
    const standin = openStandin();
    const source = 'EXPORT int cuCheckpointProcessGetState(int pid, int *state) { *state = pid; return 0; }';
    const libcuda = [buildVariant('libcuda', { rename: 'cuCheckpointProcessGetState', source })];
    const session = await openSession(standin, { libcuda });
    expect(await session.ask('state 3')).toEqual(stateIs('failed'));
    expect(await session.ask('state 4')).toEqual({
      ...{ ok: false, error: -1, name: 'UNKNOWN_STATE', call: 'cuCheckpointProcessGetState' },
      text: 'the driver gives a state that is not known: 4',
    });
  });
});

describe('errors of the driver', () => {
  const calls = [
    ['state', 'cuCheckpointProcessGetState'],
    ['restore-thread', 'cuCheckpointProcessGetRestoreThreadId'],
    ['lock', 'cuCheckpointProcessLock'],
    ['checkpoint', 'cuCheckpointProcessCheckpoint'],
    ['restore', 'cuCheckpointProcessRestore'],
    ['unlock', 'cuCheckpointProcessUnlock'],
    ['restore-unlock', 'cuCheckpointProcessRestore'],
  ] as const;
  test.each(calls)('come back with name, text and call: %s', async (request, call) => {
    const { standin, session, worker, pid } = await open('--name', 'rank0');
    const line = request === 'lock' ? `lock ${pid} 1000` : `${request} ${pid}`;
    standin.fault(`${call} rank1 error 1`);
    standin.fault(`${call} rank0 error 999 once`);
    const unknown = { ok: false, error: 999, name: 'CUDA_ERROR_UNKNOWN', text: 'unknown error', call };
    expect(await session.ask(line)).toEqual(unknown);
    const clear = standin.fault(`${call} ${pid} error 12345`);
    expect(await session.ask(line)).toEqual({ ok: false, error: 12345, name: 'CUDA_ERROR_12345', text: '', call });
    clear();
    await worker.next();
    expect(await session.ask(`lock ${pid} 10000`)).toEqual(timed);
  });

  test('tell an unlock that failed from the restore before it', async () => {
    const { standin, session, worker, pid } = await open();
    await checkpoint(session, pid);
    const clear = standin.fault(`cuCheckpointProcessUnlock ${pid} error 999`);
    expect(await session.ask(`restore-unlock ${pid}`)).toEqual({
      ...{ ok: false, error: 999, name: 'CUDA_ERROR_UNKNOWN', text: 'unknown error' },
      ...{ call: 'cuCheckpointProcessUnlock', restored: true },
    });
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('locked'));
    clear();
    expect(await session.ask(`unlock ${pid}`)).toEqual(timed);
    await worker.next();
  });

  test('may follow a call that was carried out', async () => {
    const { standin, session, pid } = await open();
    standin.fault(`cuCheckpointProcessLock ${pid} error 999 after once`);
    expect(await session.ask(`lock ${pid} 10000`)).toMatchObject({ ok: false, error: 999 });
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('locked'));
  });
});

describe('a call that hangs', () => {
  test('costs its own process only, and can be killed', async () => {
    const { standin, session, worker, pid } = await open();
    const other = await startWorker(standin);
    standin.fault(`cuCheckpointProcessCheckpoint ${pid} hang`);
    expect(await session.ask(`lock ${pid} 10000`)).toEqual(timed);
    const hung = session.ask(`checkpoint ${pid}`).catch((reason: unknown) => reason);
    const beside = await openSession(standin);
    await checkpoint(beside, other.pid);
    expect(await beside.ask(`restore-unlock ${other.pid}`)).toMatchObject({ ok: true });
    session.child.kill('SIGKILL');
    expect(await session.ended).toEqual({ code: null, signal: 'SIGKILL' });
    expect(await hung).toBeInstanceOf(Error);
    expect(await beside.ask(`unlock ${pid}`)).toEqual(timed);
    await worker.next();
  });

  test('may be a lock that something on the GPU does not let through', async () => {
    const { standin, session, worker, pid } = await open();
    standin.fault(`cuCheckpointProcessLock ${pid} timeout`);
    const before = performance.now();
    expect(await session.ask(`lock ${pid} 120`)).toMatchObject({ error: 600, name: 'CUDA_ERROR_NOT_READY' });
    expect(performance.now() - before).toBeGreaterThanOrEqual(110);
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('running'));
    await worker.next();
  });

  test('or a driver that takes the process down', async () => {
    const { standin, session, pid } = await open();
    standin.fault('cuCheckpointProcessLock * abort');
    await expect(session.ask(`lock ${pid} 100`)).rejects.toThrow('it ended: SIGABRT');
  });
});

test('a fault can have a process start another CUDA process, or end it', async () => {
  const { standin, session, worker, pid } = await open();
  standin.fault(`cuCheckpointProcessLock ${pid} spawn once`);
  expect(await session.ask(`lock ${pid} 10000`)).toEqual(timed);
  const [born = 0] = childrenOf(pid);
  expect(await session.ask(`state ${born}`)).toEqual(stateIs('running'));
  standin.fault(`cuCheckpointProcessCheckpoint ${pid} signal 9`);
  standin.fault(`cuCheckpointProcessCheckpoint ${pid} delay 50`);
  expect(await session.ask(`checkpoint ${pid}`)).toMatchObject({ ok: false });
  expect(await worker.ended).toEqual({ code: null, signal: 'SIGKILL' });
});
