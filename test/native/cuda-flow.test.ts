import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { buildVariant, openSession, openStandin, type Session, startWorker } from './cuda-session.ts';
import { childrenOf, statusOf, tidyUp } from './programs.ts';
import { standinGpu } from './standin/standin.ts';

afterAll(tidyUp);

const [U0, U1] = [standinGpu(0).uuid, standinGpu(1).uuid];
const MIB = 1 << 20;
const timed = { ok: true, seconds: expect.any(Number) };
const stateIs = (state: string) => ({ ok: true, state });
const illegal = (call: string) => ({
  ok: false,
  error: 401,
  name: 'CUDA_ERROR_ILLEGAL_STATE',
  text: 'the operation cannot be performed in the present state',
  call,
});

/** A process, and a session to act upon it. */
async function open(...args: string[]) {
  const standin = openStandin();
  const worker = await startWorker(standin, ...args);
  const session = await openSession(standin);
  return { standin, worker, session, pid: worker.pid };
}

async function checkpoint(session: Session, pid: number): Promise<void> {
  expect(await session.ask(`lock ${pid} 10000`)).toEqual(timed);
  expect(await session.ask(`checkpoint ${pid}`)).toEqual(timed);
  expect(await session.ask(`state ${pid}`)).toEqual(stateIs('checkpointed'));
}

/** What the process has open and mapped of its stand-in's devices and their memory. */
function devicesOf(pid: number, directory: string): string[] {
  const open = readdirSync(`/proc/${pid}/fd`).map((name) => readlinkSync(`/proc/${pid}/fd/${name}`));
  const mapped = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  return [...open, ...mapped].filter((line) => line.includes(`${directory}/dev/`) || line.includes('/memory/GPU-'));
}

/** Stops a process, and waits until the last of its threads has stopped. */
async function halt(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  const states = () => readdirSync(`/proc/${pid}/task`).map((tid) => statusOf(Number(tid), 'State').charAt(0));
  await expect.poll(() => new Set(states())).toEqual(new Set(['T']));
}

const kib = (pid: number, field: string) => Number(statusOf(pid, field).replace(' kB', ''));

describe('lock, checkpoint, restore, unlock', () => {
  const places = {
    private: (pid: number) => kib(pid, 'RssAnon'),
    shared: (pid: number) => kib(pid, 'RssShmem'),
    memfd: (pid: number) => kib(pid, 'RssShmem'),
  };
  test.each(Object.entries(places))('with the copy in %s memory', async (kind, measure) => {
    const bytes = 16 * MIB;
    const { standin, worker, session, pid } = await open('--host-copy', kind, '--bytes', `${bytes}`);
    const freeBytes = async () => ((await session.ask('gpus'))['gpus'] as { freeBytes: number }[])[0]?.freeBytes;
    const before = await worker.next();
    expect(before).toMatchObject({ reported: [U0, U1], on: [U0] });
    expect(await freeBytes()).toBe(standinGpu(0).bytes - bytes);

    expect(await session.ask(`lock ${pid} 10000`)).toEqual(timed);
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('locked'));
    const locked = worker.last();
    const small = measure(pid);
    expect(devicesOf(pid, standin.directory)).not.toEqual([]);
    const { seconds } = (await session.ask(`checkpoint ${pid}`)) as { seconds: number };
    expect(seconds).toBeGreaterThan(0);
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('checkpointed'));
    expect(measure(pid) - small).toBeGreaterThan((bytes * 0.9) / 1024);
    expect(devicesOf(pid, standin.directory)).toEqual([]);
    const memfds = readdirSync(`/proc/${pid}/fd`).map((name) => readlinkSync(`/proc/${pid}/fd/${name}`));
    expect(memfds.some((link) => link.startsWith('/memfd:standin'))).toBe(kind === 'memfd');
    expect(await freeBytes()).toBe(standinGpu(0).bytes);
    expect(worker.last()).toEqual(locked);

    expect(await session.ask(`restore ${pid}`)).toEqual(timed);
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('locked'));
    expect(await freeBytes()).toBe(standinGpu(0).bytes - bytes);
    expect(worker.last()).toEqual(locked);
    expect(await session.ask(`unlock ${pid}`)).toEqual(timed);
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('running'));
    const after = await worker.next();
    expect(after).toMatchObject({ hash: before.hash, on: [U0] });
    expect(measure(pid) - small).toBeLessThan(bytes / 2 / 1024);
    expect(await session.end()).toBe(0);
  });

  test('names the restore thread as the caller sees it', async () => {
    const { session, pid } = await open();
    const { tid } = (await session.ask(`restore-thread ${pid}`)) as { tid: number };
    expect(readdirSync(`/proc/${pid}/task`)).toContain(`${tid}`);
    expect(readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8')).toBe('standin:running\n');
  });

  test('out of order is refused, and changes nothing', async () => {
    const { session, pid, worker } = await open();
    expect(await session.ask(`checkpoint ${pid}`)).toEqual(illegal('cuCheckpointProcessCheckpoint'));
    expect(await session.ask(`restore ${pid}`)).toEqual(illegal('cuCheckpointProcessRestore'));
    expect(await session.ask(`unlock ${pid}`)).toEqual(illegal('cuCheckpointProcessUnlock'));
    await worker.next();
    await checkpoint(session, pid);
    expect(await session.ask(`lock ${pid} 1000`)).toEqual(illegal('cuCheckpointProcessLock'));
    expect(await session.ask(`unlock ${pid}`)).toEqual(illegal('cuCheckpointProcessUnlock'));
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('checkpointed'));
    const both = { ok: true, restoreSeconds: expect.any(Number), unlockSeconds: expect.any(Number) };
    expect(await session.ask(`restore-unlock ${pid}`)).toEqual(both);
    await worker.next();
  });

  test('works for a process that another session locked', async () => {
    const { standin, session, worker, pid } = await open();
    await checkpoint(session, pid);
    session.child.kill('SIGKILL');
    await session.ended;
    const next = await openSession(standin);
    expect(await next.ask(`state ${pid}`)).toEqual(stateIs('checkpointed'));
    expect(await next.ask(`restore-unlock ${pid}`)).toMatchObject({ ok: true });
    await worker.next();
  });
});

describe('a map of GPUs', () => {
  const bare = (uuid: string) => uuid.replace('GPU-', '');
  const swaps = [`${U0}=${U1},${U1}=${U0}`, `${bare(U1)}=${U0.toUpperCase()},${U0}=${bare(U1).toUpperCase()}`];
  test.each(swaps)('moves memory from one to the other: %s', async (map) => {
    const { session, worker, pid } = await open('--gpu', '0', '--gpu', '1');
    const before = await worker.next();
    expect(before.on).toEqual([U0, U1]);
    await checkpoint(session, pid);
    expect(await session.ask(`restore ${pid} ${map}`)).toEqual(timed);
    expect(await session.ask(`unlock ${pid}`)).toEqual(timed);
    // It goes on reporting what it saw at its start.
    expect(await worker.next()).toMatchObject({ hash: before.hash, reported: [U0, U1], on: [U1, U0] });
    // The next map is about the GPUs that it is on now.
    await checkpoint(session, pid);
    expect(await session.ask(`restore-unlock ${pid} ${map}`)).toMatchObject({ ok: true });
    expect(await worker.next()).toMatchObject({ hash: before.hash, on: [U0, U1] });
  });

  test('has every GPU that the process sees, once, and no other; a right one may follow', async () => {
    const { session, worker, pid } = await open();
    const elsewhere = standinGpu(9).uuid;
    await checkpoint(session, pid);
    const incomplete = [
      `${U0}=${U1}`,
      `${U0}=${U0}`,
      `${U0}=${U1},${U1}=${U1}`,
      `${U0}=${U0},${U0}=${U1}`,
      `${U0}=${U0},${elsewhere}=${U1}`,
      `${U0}=${U0},${U1}=${U1},${elsewhere}=${elsewhere}`,
    ];
    for (const map of incomplete)
      expect(await session.ask(`restore-unlock ${pid} ${map}`), map).toEqual({
        ...{ ok: false, error: 1, name: 'CUDA_ERROR_INVALID_VALUE', text: 'invalid argument' },
        call: 'cuCheckpointProcessRestore',
      });
    const unseen = await session.ask(`restore ${pid} ${U0}=${U0},${U1}=${elsewhere}`);
    expect(unseen).toMatchObject({ error: 101, name: 'CUDA_ERROR_INVALID_DEVICE' });
    expect(await session.ask(`state ${pid}`)).toEqual(stateIs('checkpointed'));
    expect(await session.ask(`restore-unlock ${pid} ${U0}=${U0},${U1}=${U1}`)).toMatchObject({ ok: true });
    await worker.next();
  });

  test('may name more GPUs than a short line holds', async () => {
    const gpus = Array.from({ length: 16 }, (_, i) => standinGpu(i));
    const standin = openStandin(gpus);
    const worker = await startWorker(standin, '--gpu', '15');
    const session = await openSession(standin);
    await checkpoint(session, worker.pid);
    const map = gpus.map(({ uuid }, i) => `${uuid}=${gpus[15 - i]?.uuid}`).join(',');
    expect(await session.ask(`restore-unlock ${worker.pid} ${map}`)).toMatchObject({ ok: true });
    expect(await worker.next()).toMatchObject({ on: [standinGpu(0).uuid] });
  });
});

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
    await expect.poll(() => readdirSync(join(standin.directory, 'commands'))).not.toEqual([]);
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
