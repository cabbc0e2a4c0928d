import { z } from 'zod';
import type { ProcessId } from '../host/native.ts';
import type { GpuPair } from './device-map.ts';
import type { CudaCall } from './driver-errors.ts';
import type { ToldUsage } from './usage.ts';
import type { CudaWorkers } from './workers.ts';

/* What the driver is asked about processes, typed. Each call takes one worker, and throws CudaError. */

/** A process that has a CUDA restore thread: the driver can lock and checkpoint it. */
export interface CudaProcess {
  /** By its PID on the host. */
  readonly id: ProcessId;
  /** Its PID inside the container. */
  readonly innerPid: number;
  readonly comm: string;
}

/** As people find it, from inside the container and from the host. */
export const describeProcess = ({ innerPid, comm, id }: CudaProcess) =>
  `process ${innerPid} (${comm}, ${id.pid} on the host)`;

const STATES = ['running', 'locked', 'checkpointed', 'failed'] as const;
export type CudaState = (typeof STATES)[number];

const done = z.object({ ok: z.literal(true), seconds: z.number().nonnegative() });
const state = z.object({ ok: z.literal(true), state: z.enum(STATES) });
const thread = z.object({ ok: z.literal(true), tid: z.int().positive() });
const usage = z.object({
  ok: z.literal(true),
  processes: z.array(z.object({ pid: z.int().positive(), gpu: z.string(), bytes: z.int().nonnegative().nullable() })),
});

export interface CudaCalls {
  state(process: CudaProcess, deadlineMs: number): Promise<CudaState>;
  /** The thread through which the driver restores the process; a process without one is none of the driver's. */
  restoreThread(process: CudaProcess, deadlineMs: number): Promise<number>;
  /** Waits until the GPU work of the process is done, at most `timeoutMs`. The rest resolve with the seconds that the driver took. */
  lock(process: CudaProcess, timeoutMs: number, deadlineMs: number): Promise<number>;
  checkpoint(process: CudaProcess, deadlineMs: number): Promise<number>;
  restore(process: CudaProcess, pairs: readonly GpuPair[], deadlineMs: number): Promise<number>;
  unlock(process: CudaProcess, deadlineMs: number): Promise<number>;
  /** Device memory of all processes of this node, as NVML tells it. */
  usage(deadlineMs: number): Promise<readonly ToldUsage[]>;
}

export function cudaCalls(workers: Pick<CudaWorkers, 'ask'>): CudaCalls {
  const ask = <T>(
    call: CudaCall,
    process: CudaProcess,
    { shape, deadlineMs, args = [] }: { shape: z.ZodType<T>; deadlineMs: number; args?: readonly (string | number)[] },
  ) => workers.ask({ call, args: [process.id.pid, ...args], who: describeProcess(process), shape, deadlineMs });
  return {
    state: async (process, deadlineMs) => (await ask('state', process, { shape: state, deadlineMs })).state,
    restoreThread: async (process, deadlineMs) =>
      (await ask('restore-thread', process, { shape: thread, deadlineMs })).tid,
    lock: async (process, timeoutMs, deadlineMs) =>
      (await ask('lock', process, { shape: done, deadlineMs, args: [Math.ceil(timeoutMs)] })).seconds,
    checkpoint: async (process, deadlineMs) => (await ask('checkpoint', process, { shape: done, deadlineMs })).seconds,
    restore: async (process, pairs, deadlineMs) => {
      const map = pairs.map(({ from, to }) => `${from}=${to}`).join(',');
      return (await ask('restore', process, { shape: done, deadlineMs, args: map === '' ? [] : [map] })).seconds;
    },
    unlock: async (process, deadlineMs) => (await ask('unlock', process, { shape: done, deadlineMs })).seconds,
    usage: async (deadlineMs) =>
      (await workers.ask({ call: 'processes', args: [], who: '', shape: usage, deadlineMs })).processes,
  };
}
