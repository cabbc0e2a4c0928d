import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { CudaError } from '../../../agent/cuda/driver-errors.ts';
import {
  type CudaRequest,
  type CudaWorkers,
  type CudaWorkersSetup,
  openCudaWorkers,
} from '../../../agent/cuda/workers.ts';
import { SnapshotError } from '../../../agent/errors.ts';
import { memoryLog } from '../../fakes/log.ts';

/** A worker that does what its first argument says. It leaves its PID in $0's directory while it lives. */
const PROGRAM = `
here=$1; cat "$here/first"; echo > "$here/worker-$$"
trap 'rm -f "$here/worker-$$"' EXIT
while read -r call what; do
  case "$what" in
    hang) exec sleep 60;;
    die) kill -9 $$;;
    die-once) [ -e "$here/died" ] || { : > "$here/died"; kill -9 $$; }; echo "{\\"ok\\":true,\\"pid\\":$$}";;
    nonsense) echo 'what?';;
    no) echo '{"ok":false,"error":600,"name":"CUDA_ERROR_NOT_READY","text":"device not ready","call":"cuCheckpointProcessLock"}';;
    meet*) : > "$here/$what"; n=0; while [ "$(ls "$here" | grep -c '^meet')" -lt "\${what#*-of-}" ] && [ $n -lt 500 ]; do sleep 0.02; n=$((n+1)); done
       echo "{\\"ok\\":true,\\"pid\\":$$}";;
    *) echo "{\\"ok\\":true,\\"pid\\":$$}";;
  esac
done`;
const READY = '{"ready":true,"driverApi":13000,"driver":"580.159.04","libcuda":"/lib/libcuda.so.1","nvml":true}\n';

let top: string;
const pools: CudaWorkers[] = [];
beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), 'workers-'));
  await writeFile(join(top, 'first'), READY);
});
afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.stop()));
  await rm(top, { recursive: true, force: true });
});

function pool(over: Partial<CudaWorkersSetup> = {}) {
  const { log, lines } = memoryLog();
  const argv = ['/bin/sh', '-c', PROGRAM, 'worker', top];
  const made = openCudaWorkers({ argv, startMs: 5_000, idleMs: 60_000, max: 8, log, ...over });
  pools.push(made);
  return { workers: made, lines };
}
const about = (what: string, over: Partial<CudaRequest<{ pid: number }>> = {}): CudaRequest<{ pid: number }> => ({
  call: 'lock',
  args: [what],
  who: 'process 57',
  shape: z.object({ ok: z.literal(true), pid: z.number() }),
  deadlineMs: 10_000,
  ...over,
});
const living = async () => (await readdir(top)).filter((name) => name.startsWith('worker-')).length;
async function eventually(holds: () => Promise<boolean> | boolean): Promise<boolean> {
  for (let i = 0; i < 500; i++) {
    if (await holds()) return true;
    await new Promise((done) => setTimeout(done, 20));
  }
  return false;
}
const failureOf = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: unknown) => error as CudaError,
  );

describe('a CUDA worker', () => {
  it('tells which driver it found, and is used again', async () => {
    const { workers } = pool();
    expect(await workers.driver()).toEqual({
      version: '580.159.04',
      api: 13000,
      libcuda: '/lib/libcuda.so.1',
      hasNvml: true,
    });
    const first = await workers.ask(about('go'));
    expect(await workers.ask(about('go'))).toEqual(first);
    expect(await living()).toBe(1);
  });

  it('does one call at a time: calls at once have one each, those beyond the limit wait', async () => {
    const { workers } = pool({ max: 3 });
    const together = await Promise.all([1, 2, 3].map((n) => workers.ask(about(`meet-${n}-of-3`))));
    expect(new Set(together.map(({ pid }) => pid)).size).toBe(3);
    await Promise.all(Array.from({ length: 9 }, () => workers.ask(about('go'))));
    expect(await living()).toBe(3);
  });

  it('is started ahead', async () => {
    const { workers } = pool();
    workers.prepare(3);
    expect(await eventually(async () => (await living()) === 3)).toBe(true);
    await Promise.all([1, 2, 3].map((n) => workers.ask(about(`meet-${n}-of-3`))));
    workers.prepare(3);
    workers.prepare(2);
    await workers.ask(about('go'));
    expect(await living()).toBe(3);
  });

  it('leaves when it has had nothing to do for a while, and another one comes when needed', async () => {
    const { workers } = pool({ idleMs: 50 });
    const { pid } = await workers.ask(about('go'));
    expect(await eventually(async () => (await living()) === 0)).toBe(true);
    expect((await workers.ask(about('go'))).pid).not.toBe(pid);
  });

  it('tells what the driver answered, goes on, and says what to do', async () => {
    const { workers } = pool();
    const { pid } = await workers.ask(about('go'));
    const error = await failureOf(workers.ask(about('no')));
    expect(error).toBeInstanceOf(CudaError);
    expect(error).toMatchObject({ failure: 'driver', code: 'CUDA_BUSY' });
    expect(error?.message).toMatch(
      /^cuCheckpointProcessLock of process 57: CUDA_ERROR_NOT_READY \(device not ready\): .*collective/,
    );
    expect(await workers.ask(about('go'))).toEqual({ ok: true, pid });
  });

  it('that hangs is killed without taking others along, and is replaced', async () => {
    const { workers } = pool();
    const others = Promise.all([1, 2].map((n) => workers.ask(about(`meet-${n}-of-3`))));
    const error = await failureOf(workers.ask(about('hang', { deadlineMs: 200 })));
    expect(error).toMatchObject({ failure: 'hung', code: 'CUDA_FAILED' });
    expect(error?.message).toContain('lock of process 57 took longer than 0.2 s');
    await workers.ask(about('meet-3-of-3'));
    expect(new Set((await others).map(({ pid }) => pid)).size).toBe(2);
  });

  it('that ends in the middle is told from one that hangs', async () => {
    const { workers } = pool();
    const error = await failureOf(workers.ask(about('die')));
    expect(error).toMatchObject({ failure: 'died', code: 'CUDA_WORKER_DIED' });
    expect(await workers.ask(about('go'))).toMatchObject({ ok: true });
  });

  it('that ends in the middle of a look is replaced unseen; one call that changes something is made once', async () => {
    const { workers } = pool();
    expect(await workers.ask(about('die-once', { call: 'state' }))).toMatchObject({ ok: true });
    await rm(join(top, 'died'));
    await expect(workers.ask(about('die-once'))).rejects.toMatchObject({ failure: 'died' });
    await expect(workers.ask(about('die', { call: 'state' }))).rejects.toMatchObject({ failure: 'died' });
  });

  it('that talks nonsense is not used again', async () => {
    const { workers } = pool();
    const { pid } = await workers.ask(about('go'));
    await expect(workers.ask(about('nonsense'))).rejects.toMatchObject({ code: 'INTERNAL' });
    expect(existsSync(`/proc/${pid}`)).toBe(false);
  });

  it('that does not die is left behind, said, and does not take the place of another', async () => {
    const undead = { pid: 4711, ended: new Promise<string[]>(() => undefined), stop: () => undefined };
    const { NoAnswer } = await import('../../../agent/host/exec.ts');
    let opened = 0;
    const open = async () => {
      opened += 1;
      const isFirst = opened === 1;
      const ask = async () => {
        if (isFirst) throw new NoAnswer('does not answer');
        return '{"ok":true,"pid":1}';
      };
      return { first: READY, session: { ...undead, ask, kill: async () => !isFirst } };
    };
    const { workers, lines } = pool({ open, max: 1 });
    expect(await failureOf(workers.ask(about('go')))).toMatchObject({ failure: 'undead', code: 'TARGET_QUARANTINED' });
    expect(await workers.ask(about('go'))).toEqual({ ok: true, pid: 1 });
    expect(lines).toContainEqual(expect.objectContaining({ level: 50, pid: 4711 }));
  });
});

describe('a node without a driver', () => {
  const NONE = '{"ready":false,"reason":"NO_LIBCUDA","message":"no libcuda.so.1 in /lib","name":""}\n';

  it('says why, to each who asks, and asks anew the next time', async () => {
    await writeFile(join(top, 'first'), NONE);
    const { workers } = pool({ max: 2 });
    const errors = await Promise.all([1, 2, 3, 4].map(() => failureOf(workers.ask(about('go')))));
    for (const error of errors)
      expect(error).toMatchObject({ code: 'CAPABILITY_MISSING', message: 'NO_LIBCUDA: no libcuda.so.1 in /lib' });
    await expect(workers.driver()).rejects.toMatchObject({ code: 'CAPABILITY_MISSING' });
    await writeFile(join(top, 'first'), READY);
    expect(await workers.driver()).toMatchObject({ version: '580.159.04' });
  });

  it('whose driver does not come up in time does not hold up anybody for longer', async () => {
    const argv = ['/bin/sh', '-c', 'exec sleep 60'];
    await expect(pool({ argv, startMs: 100 }).workers.driver()).rejects.toMatchObject({ code: 'CAPABILITY_MISSING' });
  });

  it('without the program is the same', async () => {
    const error = await failureOf(pool({ argv: [join(top, 'missing')] }).workers.driver());
    expect(error).toMatchObject({ code: 'CAPABILITY_MISSING' });
    expect(error?.message).toContain('missing');
  });
});

describe('stopping', () => {
  it('ends workers that idle, cuts off what is under way, and takes nothing more', async () => {
    const { workers } = pool();
    await workers.ask(about('go'));
    const cutOff = failureOf(workers.ask(about('hang')));
    await workers.stop();
    expect(await cutOff).toBeInstanceOf(SnapshotError);
    await expect(workers.ask(about('go'))).rejects.toMatchObject({ code: 'SHUTTING_DOWN' });
  });
});
