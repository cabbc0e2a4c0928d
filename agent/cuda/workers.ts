import type { Logger } from 'pino';
import { z } from 'zod';
import { SnapshotError } from '../errors.ts';
import { type LineSession, NoAnswer, openSession } from '../host/exec.ts';
import { parseLine } from '../host/verb.ts';
import { type CudaCall, CudaError, driverError } from './driver-errors.ts';

/** The driver of this node, as a worker found it. */
export interface CudaDriver {
  /** `580.159.04`; empty where NVML does not tell. */
  readonly version: string;
  /** Version of its programming interface: 13000 for CUDA 13.0. */
  readonly api: number;
  /** The library that was opened. */
  readonly libcuda: string;
  /** Whether NVML tells of GPUs and of the device memory of processes. */
  readonly hasNvml: boolean;
}

export interface CudaRequest<T> {
  readonly call: CudaCall;
  readonly args: readonly (string | number)[];
  /** Who it is about, for messages. */
  readonly who: string;
  readonly shape: z.ZodType<T>;
  readonly deadlineMs: number;
}

/**
 * Programs that call the CUDA driver for the agent. Initialising the driver takes long and calls may hang for ever, so each is
 * initialised once, does one call at a time, and can be killed without taking others along.
 */
export interface CudaWorkers {
  /** The driver, asked anew where it was not there the last time. Throws CAPABILITY_MISSING with the reason. */
  driver(): Promise<CudaDriver>;
  /** Has workers ready for so many calls at once. Whatever keeps them from starting is told by the calls. */
  prepare(calls: number): void;
  /**
   * Throws CudaError where the driver refuses, or the worker ends, or hangs beyond the deadline. A call that only looks is made again where
   * its worker ends.
   */
  ask<T>(request: CudaRequest<T>): Promise<T>;
  /** Ends all workers; a call that is under way is cut off. */
  stop(): Promise<void>;
}

export interface CudaWorkersSetup {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** How long the driver may take to initialise. */
  readonly startMs: number;
  /** A worker keeps the driver loaded on all GPUs: one that had nothing to do for so long leaves. */
  readonly idleMs: number;
  readonly max: number;
  readonly log: Logger;
  /** How a worker is started; another one in tests. */
  readonly open?: typeof openSession;
}

export function openCudaWorkers(setup: CudaWorkersSetup): CudaWorkers {
  const pool = new Pool(setup);
  return {
    driver: () => pool.driver(),
    prepare: (calls) => pool.prepare(calls),
    ask: (request) => pool.ask(request),
    stop: () => pool.stop(),
  };
}

const ready = z.discriminatedUnion('ready', [
  z.object({
    ready: z.literal(true),
    driver: z.string().nullable(),
    driverApi: z.number(),
    libcuda: z.string(),
    nvml: z.boolean(),
  }),
  z.object({
    ready: z.literal(false),
    reason: z.string(),
    message: z.string().default(''),
    name: z.string().default(''),
  }),
]);
const refusal = z.object({
  ok: z.literal(false),
  name: z.string().default('no name'),
  text: z.string().default(''),
  call: z.string().default(''),
});

interface Worker {
  readonly session: LineSession;
  readonly driver: CudaDriver;
}
interface Waiting {
  readonly resolve: (worker: Worker) => void;
  readonly reject: (error: unknown) => void;
}

/** Calls that change nothing, and how often one is made whose worker ends. */
const LOOKS: ReadonlySet<CudaCall> = new Set<CudaCall>(['gpus', 'processes', 'state', 'restore-thread']);
const MAX_LOOKS = 3;
/** How long a worker may take to end when its input has ended. */
const LEAVE_MS = 2_000;

class Pool {
  readonly #setup: CudaWorkersSetup;
  readonly #idle: { readonly worker: Worker; readonly leaving: NodeJS.Timeout }[] = [];
  readonly #waiting: Waiting[] = [];
  readonly #all = new Set<Worker>();
  #starting = 0;
  #isStopped = false;
  #driver: CudaDriver | undefined;

  constructor(setup: CudaWorkersSetup) {
    this.#setup = setup;
  }

  async driver(): Promise<CudaDriver> {
    if (this.#driver === undefined) this.#give(await this.#acquire());
    if (this.#driver === undefined) throw new SnapshotError('INTERNAL', 'a CUDA worker began without a driver');
    return this.#driver;
  }

  prepare(calls: number): void {
    this.#grow(calls - this.#idle.length + this.#waiting.length);
  }

  async ask<T>(request: CudaRequest<T>): Promise<T> {
    for (let tries = 1; ; tries += 1)
      try {
        return await this.#askOnce(request);
      } catch (error) {
        // What only looks is asked again: the worker may have ended while it had nothing to do.
        const isDeath = error instanceof CudaError && error.failure === 'died';
        if (!isDeath || !LOOKS.has(request.call) || tries === MAX_LOOKS) throw error;
      }
  }

  async #askOnce<T>(request: CudaRequest<T>): Promise<T> {
    const worker = await this.#acquire();
    const answer = await this.#call(worker, request);
    const refused = refusal.safeParse(answer);
    const read = request.shape.safeParse(answer);
    if (refused.success || read.success) this.#give(worker);
    if (refused.success) throw driverError(request.call, request.who, refused.data);
    if (read.success) return read.data;
    await this.#end(worker);
    const text = JSON.stringify(answer)?.slice(0, 200) ?? 'no JSON';
    throw new SnapshotError('INTERNAL', `the answer of a CUDA worker to ${request.call} is not understood: ${text}`);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const { leaving } of this.#idle.splice(0)) clearTimeout(leaving);
    for (const { reject } of this.#waiting.splice(0)) reject(stopped());
    await Promise.all([...this.#all].map((worker) => this.#leave(worker)));
  }

  async #call(worker: Worker, { call, args, who, deadlineMs }: CudaRequest<unknown>): Promise<unknown> {
    try {
      return parseLine(await worker.session.ask([call, ...args].join(' '), deadlineMs));
    } catch (cause) {
      const what = `${call}${who && ` of ${who}`}`;
      if (!(cause instanceof NoAnswer)) {
        await this.#end(worker);
        throw new CudaError('died', 'CUDA_WORKER_DIED', `the CUDA worker ended during ${what}: ${String(cause)}`);
      }
      const isGone = await this.#end(worker);
      const hung = `${what} took longer than ${deadlineMs / 1000} s, and its worker was killed`;
      if (isGone) throw new CudaError('hung', 'CUDA_FAILED', `${hung}: look at dmesg for messages of the driver`);
      throw new CudaError('undead', 'TARGET_QUARANTINED', `${hung}, but does not die: it hangs in the driver`);
    }
  }

  /** A worker that has nothing to do: one that idles, or else the next one to get free or to start. */
  #acquire(): Promise<Worker> {
    if (this.#isStopped) return Promise.reject(stopped());
    const idle = this.#idle.pop();
    if (idle !== undefined) {
      clearTimeout(idle.leaving);
      return Promise.resolve(idle.worker);
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#grow(this.#waiting.length);
    });
  }

  #give(worker: Worker): void {
    if (!this.#all.has(worker)) return;
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) {
      waiting.resolve(worker);
      return;
    }
    if (this.#isStopped) return;
    const leaving = setTimeout(() => {
      this.#forget(worker);
      void this.#leave(worker);
    }, this.#setup.idleMs);
    this.#idle.push({ worker, leaving: leaving.unref() });
  }

  #grow(wanted: number): void {
    while (this.#starting < wanted && this.#all.size + this.#starting < this.#setup.max) {
      this.#starting += 1;
      void this.#start();
    }
  }

  async #start(): Promise<void> {
    const { log } = this.#setup;
    try {
      const worker = await this.#open();
      this.#driver = worker.driver;
      this.#all.add(worker);
      void worker.session.ended.then(() => this.#forget(worker));
      this.#starting -= 1;
      if (this.#isStopped) void this.#leave(worker);
      else this.#give(worker);
    } catch (err) {
      this.#driver = undefined;
      this.#starting -= 1;
      log.debug({ err }, 'CUDA worker did not start');
      this.#waiting.shift()?.reject(err);
      // Each of those who wait is told by an attempt of its own.
      this.#grow(this.#waiting.length);
    }
  }

  async #open(): Promise<Worker> {
    const { argv, env = {}, startMs, open = openSession } = this.#setup;
    const opened = await open(argv, () => false, { answerMs: startMs, env }).catch((cause: unknown) => {
      throw new SnapshotError('CAPABILITY_MISSING', `no CUDA worker can be started: ${String(cause)}`, { cause });
    });
    const said = ready.safeParse(parseLine(opened.first)).data;
    if (said?.ready === true) {
      const { driver, driverApi: api, libcuda, nvml: hasNvml } = said;
      return { session: opened.session, driver: { version: driver ?? '', api, libcuda, hasNvml } };
    }
    void opened.session.kill();
    if (said === undefined)
      throw new SnapshotError('INTERNAL', `the CUDA worker says what is not understood: ${opened.first.slice(0, 200)}`);
    const { reason, message, name } = said;
    throw new SnapshotError('CAPABILITY_MISSING', [reason, name, message].filter((part) => part !== '').join(': '));
  }

  #forget(worker: Worker): void {
    this.#all.delete(worker);
    const at = this.#idle.findIndex((one) => one.worker === worker);
    const [idle] = at < 0 ? [] : this.#idle.splice(at, 1);
    clearTimeout(idle?.leaving);
    this.#grow(this.#waiting.length);
  }

  async #leave({ session }: Worker): Promise<void> {
    session.stop();
    let late: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      late = setTimeout(resolve, LEAVE_MS);
    });
    await Promise.race([session.ended, patience]);
    clearTimeout(late);
    await this.#kill(session);
  }

  async #end(worker: Worker): Promise<boolean> {
    this.#forget(worker);
    return await this.#kill(worker.session);
  }

  /** One that does not die is left behind: it holds whatever the driver gave it until the driver lets go. */
  async #kill(session: LineSession): Promise<boolean> {
    const isGone = await session.kill();
    const { log } = this.#setup;
    if (isGone) return true;
    log.error({ pid: session.pid }, 'CUDA worker does not die after SIGKILL and is left behind');
    void session.ended.then(() => log.warn({ pid: session.pid }, 'CUDA worker that was left behind is gone'));
    return false;
  }
}

const stopped = () => new SnapshotError('SHUTTING_DOWN', 'the agent is being stopped');
