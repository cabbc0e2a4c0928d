import { setTimeout as sleep } from 'node:timers/promises';
import { isEnding, readProcess } from '../container/tree.ts';
import { asSnapshotError, type SnapshotError } from '../errors.ts';
import type { CudaCalls, CudaProcess, CudaState } from './calls.ts';
import { CudaError } from './driver-errors.ts';
import type { CudaLimits } from './limits.ts';
import { forSameProcess } from './same-process.ts';

/** How the way back of one process ended. */
export interface Comeback {
  readonly process: CudaProcess;
  /**
   * `gone`: it ended by itself. `lost`: the driver keeps it from going on, and says that it cannot do otherwise. `unknown`: the driver
   * could not be asked.
   */
  readonly end: 'running' | 'gone' | 'lost' | 'unknown';
  readonly restoreSeconds: number;
  readonly unlockSeconds: number;
  /** Why it is lost or unknown. */
  readonly failure: SnapshotError | undefined;
}

/** How often it is tried where the driver answers. While it does not, the tries go on for as long as the limits say. */
const MAX_TRIES = 4;
/** Between two looks at a process that may still change by itself, at first and at most. */
const LOOK_MS = 50;
const MAX_LOOK_MS = 2_000;

export interface ComebackRequest {
  readonly calls: CudaCalls;
  readonly limits: CudaLimits;
  readonly procRoot: string;
  /** Times of `performance.now()`. A call whose worker died may go on inside the process by itself: */
  readonly cutOff?: {
    /** until then a lock may still come about, so that `running` does not count, */
    readonly lockUntilMs: number;
    /** and until then the driver may refuse everything, because it is still busy. */
    readonly busyUntilMs: number;
  };
}

/**
 * Brings a process back to running from whatever state it is in. The driver is asked for the state before every call, since what became
 * of a call that was cut off nobody else knows. A restore that the driver refused is not tried again: nothing but its end comes of that.
 * An unlock is attempted whatever happened before. A driver that cannot be asked may come back: as long as the limits are patient nothing is
 * given up. Never rejects.
 */
export async function bringBack(request: ComebackRequest, process: CudaProcess): Promise<Comeback> {
  return await new WayBack(request, process).walk();
}

class WayBack {
  readonly #request: ComebackRequest;
  readonly #process: CudaProcess;
  #busyUntilMs: number;
  #patientUntilMs: number;
  #restoreSeconds = 0;
  #unlockSeconds = 0;
  #failure: SnapshotError | undefined;
  #isRefused = false;
  /** Whether the driver could not be asked in the present try. */
  #isSilent = false;

  constructor(request: ComebackRequest, process: CudaProcess) {
    this.#request = { ...request, calls: forSameProcess(request.calls, request.procRoot) };
    this.#process = process;
    this.#busyUntilMs = request.cutOff?.busyUntilMs ?? 0;
    this.#patientUntilMs = performance.now() + request.limits.patienceMs;
  }

  async walk(): Promise<Comeback> {
    let state: CudaState | undefined;
    let pauseMs = LOOK_MS;
    for (let tries = 0; ; ) {
      if (!(await this.#isThere())) return this.#end('gone');
      this.#isSilent = false;
      state = await this.#state();
      if (state === 'running') {
        if (!this.#mayBeLocked) return this.#end('running');
        await sleep(LOOK_MS);
        continue;
      }
      if (state === 'failed' || (state === 'checkpointed' && this.#isRefused)) break;
      if (state === 'checkpointed') await this.#restore();
      else await this.#unlock();
      tries += 1;
      if (!this.#goesOn(tries)) break;
      if (tries < 2) continue;
      // What is worth a pause is worth a whole try after it.
      await sleep(pauseMs);
      pauseMs = Math.min(MAX_LOOK_MS, pauseMs * 2);
    }
    return await this.#lastTry(state);
  }

  #goesOn(tries: number): boolean {
    return tries < MAX_TRIES || this.#isBusy || this.#mayBeLocked || (this.#isSilent && this.#isPatient);
  }

  get #isBusy(): boolean {
    return performance.now() < this.#busyUntilMs;
  }

  /** A lock is still on its way: that the process runs does not count. */
  get #mayBeLocked(): boolean {
    return performance.now() < (this.#request.cutOff?.lockUntilMs ?? 0);
  }

  get #isPatient(): boolean {
    return performance.now() < this.#patientUntilMs;
  }

  async #lastTry(state: CudaState | undefined): Promise<Comeback> {
    await this.#unlock();
    const last = await this.#state();
    if (last === 'running') return this.#end('running');
    if (!(await this.#isThere())) return this.#end('gone');
    return this.#end((last ?? state) === undefined ? 'unknown' : 'lost');
  }

  #end(end: Comeback['end']): Comeback {
    return {
      process: this.#process,
      end,
      restoreSeconds: this.#restoreSeconds,
      unlockSeconds: this.#unlockSeconds,
      failure: end === 'lost' || end === 'unknown' ? this.#failure : undefined,
    };
  }

  async #isThere(): Promise<boolean> {
    const { pid, start } = this.#process.id;
    const found = await readProcess(this.#request.procRoot, pid);
    return found !== undefined && found.stat.start === start && !isEnding(found);
  }

  async #state(): Promise<CudaState | undefined> {
    const { calls, limits } = this.#request;
    return await this.#tried(calls.state(this.#process, limits.callMs));
  }

  async #restore(): Promise<void> {
    const { calls, limits } = this.#request;
    const began = performance.now();
    const moved = calls.restore(this.#process, [], limits.moveMs).finally(() => {
      // The time that memory takes to move is not time in which nobody answered.
      this.#patientUntilMs += performance.now() - began;
    });
    const seconds = await this.#tried(moved, (error) => {
      // Without a worker the driver was not asked at all.
      if (!(error instanceof CudaError)) return;
      const isCutOff = error.failure === 'died';
      // From its end on: when the driver began with it only the worker knew. One that always dies is not waited for without end.
      if (isCutOff && this.#isPatient)
        this.#busyUntilMs = Math.max(this.#busyUntilMs, performance.now() + limits.moveMs);
      // One that hung is not repeated either: it would only hang again.
      if (!isCutOff) this.#isRefused = !this.#isBusy || error.failure !== 'driver';
    });
    this.#restoreSeconds += seconds ?? (performance.now() - began) / 1000;
  }

  async #unlock(): Promise<void> {
    const { calls, limits } = this.#request;
    this.#unlockSeconds += (await this.#tried(calls.unlock(this.#process, limits.callMs))) ?? 0;
  }

  /** The failure that is kept is the last one, or that of the restore that the process is lost to. */
  async #tried<T>(call: Promise<T>, onFailure?: (error: unknown) => void): Promise<T | undefined> {
    try {
      return await call;
    } catch (error) {
      if (!this.#isRefused) this.#failure = asSnapshotError(error);
      if (isSilence(error)) this.#isSilent = true;
      onFailure?.(error);
      return undefined;
    }
  }
}

/** No worker could be started, or it ended, or it had no answer. One that does not even die is no reason to lose another one. */
const isSilence = (error: unknown) =>
  !(error instanceof CudaError) || error.failure === 'died' || error.failure === 'hung';
