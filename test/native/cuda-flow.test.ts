import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import {
  checkpoint,
  devicesOf,
  illegal,
  open,
  openFilesOf,
  openSession,
  openStandin,
  startWorker,
  stateIs,
  timed,
} from './cuda-session.ts';
import { statusOf, tidyUp } from './programs.ts';
import { standinGpu } from './standin/standin.ts';

afterAll(tidyUp);

const [U0, U1] = [standinGpu(0).uuid, standinGpu(1).uuid];
const MIB = 1 << 20;
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
    expect(openFilesOf(pid).some((link) => link.startsWith('/memfd:standin'))).toBe(kind === 'memfd');
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
