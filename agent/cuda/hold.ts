import { setTimeout as sleep } from 'node:timers/promises';
import type { GpuUser } from '../container/gpu-users.ts';
import { isEnding, readProcess } from '../container/tree.ts';
import { type Reason, SnapshotError } from '../errors.ts';
import type { CudaCalls, CudaProcess } from './calls.ts';
import { bringBack, type Comeback } from './comeback.ts';
import { CudaError } from './driver-errors.ts';
import type { CudaLimits } from './limits.ts';
import { leftoverProblems, lookAgain } from './processes.ts';
import { forSameProcess } from './same-process.ts';
import { type DeviceUsage, totalBytes } from './usage.ts';

export interface HoldRequest {
  readonly calls: CudaCalls;
  readonly procRoot: string;
  readonly limits: (deviceBytes: number) => CudaLimits;
  /** The processes of the container that have to do with the GPU, as they are now. */
  readonly users: () => Promise<readonly GpuUser[]>;
  /** Device memory of processes that run or are locked. */
  readonly measure: (processes: readonly CudaProcess[]) => Promise<readonly DeviceUsage[]>;
  /** Told of processes before they are locked: whoever comes after a crash must know which to bring back. */
  readonly beforeLock: (processes: readonly CudaProcess[]) => Promise<void>;
}

/** How a container's CUDA processes came back. */
export interface Release {
  readonly comebacks: readonly Comeback[];
  /** From the first lock until the last process ran again. */
  readonly pauseSeconds: number;
  /** Of the slowest process each. */
  readonly restoreSeconds: number;
  readonly unlockSeconds: number;
}

/** CUDA processes that begin while others are locked are locked too; what begins one after the other without end is not followed. */
const MAX_ROUNDS = 5;

interface Held {
  readonly process: CudaProcess;
  isCheckpointed: boolean;
  cutOff: { lockUntilMs: number; busyUntilMs: number } | undefined;
}

/**
 * The CUDA processes of one container, from their lock until they run again. All calls of a kind go to all processes at once, each with a
 * worker of its own: a process that hangs holds up no other.
 */
export class CudaHold {
  readonly #request: HoldRequest;
  readonly #calls: CudaCalls;
  readonly #held: Held[] = [];
  /** Calls that were made last; never rejects. */
  #underWay: Promise<unknown> = Promise.resolve();
  #usage: readonly DeviceUsage[] = [];
  #beganMs: number | undefined;
  #releasing: Promise<Release> | undefined;
  #release: Release | undefined;

  constructor(request: HoldRequest) {
    this.#request = request;
    this.#calls = forSameProcess(request.calls, request.procRoot);
  }

  get processes(): readonly CudaProcess[] {
    return this.#held.map(({ process }) => process);
  }

  /** Device memory of the locked processes. Once they are checkpointed the driver does not know of it any more. */
  get usage(): readonly DeviceUsage[] {
    return this.#usage;
  }

  /** How it ended; undefined while it has not. */
  get released(): Release | undefined {
    return this.#release;
  }

  /** Locks these processes, and those that begin meanwhile. What was locked before a failure stays so until the release. */
  async lock(processes: readonly CudaProcess[], signal: AbortSignal): Promise<void> {
    let fresh = processes;
    for (let round = 0; fresh.length > 0; round += 1) {
      if (round === MAX_ROUNDS) throw this.#restless(fresh);
      signal.throwIfAborted();
      await this.#lockAll(fresh);
      fresh = (await this.#look()).newcomers;
    }
  }

  /** Checkpoints what is locked. When it resolves, nothing in the container holds the GPU. */
  async checkpoint(signal: AbortSignal): Promise<void> {
    for (let round = 0; ; round += 1) {
      signal.throwIfAborted();
      await this.#all(
        this.#held.filter(({ isCheckpointed }) => !isCheckpointed),
        (held) => this.#checkpointOne(held),
      );
      const { newcomers, reasons } = await this.#lookUntilClear();
      if (newcomers.length === 0 && reasons.length > 0) throw refused(reasons);
      if (newcomers.length === 0) return;
      if (round === MAX_ROUNDS) throw this.#restless(newcomers);
      await this.#lockAll(newcomers);
    }
  }

  /** Brings all of them back to running, as far as that is possible: `comebacks` says how it went. Only the first call does anything. */
  async release(): Promise<Release> {
    this.#releasing ??= this.#bringBack();
    return await this.#releasing;
  }

  async #bringBack(): Promise<Release> {
    // A step that was given up may still be in the middle of them. They have deadlines of their own.
    await this.#underWay;
    const { calls, procRoot } = this.#request;
    const request = { calls, procRoot, limits: this.#limits };
    const comebacks = await Promise.all(
      this.#held.map(({ process, cutOff }) => bringBack({ ...request, ...(cutOff && { cutOff }) }, process)),
    );
    this.#release = {
      comebacks,
      pauseSeconds: this.#beganMs === undefined ? 0 : (performance.now() - this.#beganMs) / 1000,
      restoreSeconds: Math.max(0, ...comebacks.map(({ restoreSeconds }) => restoreSeconds)),
      unlockSeconds: Math.max(0, ...comebacks.map(({ unlockSeconds }) => unlockSeconds)),
    };
    return this.#release;
  }

  get #limits(): CudaLimits {
    return this.#request.limits(totalBytes(this.#usage));
  }

  async #lockAll(processes: readonly CudaProcess[]): Promise<void> {
    await this.#request.beforeLock([...this.processes, ...processes]);
    if (this.#releasing !== undefined)
      throw new SnapshotError('CANCELLED', 'the CUDA processes were let go of meanwhile');
    const fresh = processes.map((process): Held => ({ process, isCheckpointed: false, cutOff: undefined }));
    this.#held.push(...fresh);
    this.#beganMs ??= performance.now();
    await this.#all(fresh, (held) => this.#lockOne(held));
    const measured = await this.#request.measure(fresh.map(({ process }) => process));
    this.#usage = [...this.#usage, ...measured];
  }

  async #lockOne(held: Held): Promise<void> {
    const { lockTimeoutMs, callMs } = this.#limits;
    try {
      await this.#calls.lock(held.process, lockTimeoutMs, lockTimeoutMs + callMs);
    } catch (error) {
      // A lock whose caller died may come about until its own time is over. Only the worker knew when that began.
      const busyUntilMs = performance.now() + lockTimeoutMs;
      if (isCutOff(error)) held.cutOff = { lockUntilMs: busyUntilMs + LOCK_GRACE_MS, busyUntilMs };
      throw error;
    }
  }

  async #checkpointOne(held: Held): Promise<void> {
    const { moveMs } = this.#limits;
    try {
      await this.#calls.checkpoint(held.process, moveMs);
      held.isCheckpointed = true;
    } catch (error) {
      if (isCutOff(error)) held.cutOff = { lockUntilMs: 0, busyUntilMs: performance.now() + moveMs };
      throw error;
    }
  }

  /** Waits for all, and throws the failure that says most. A process that ended by itself is no failure: it is let go of. */
  async #all(group: readonly Held[], work: (held: Held) => Promise<void>): Promise<void> {
    const failures: unknown[] = [];
    this.#underWay = Promise.all(
      group.map(async (held) => {
        try {
          await work(held);
        } catch (error) {
          if (await this.#isThere(held.process)) failures.push(error);
          else this.#held.splice(this.#held.indexOf(held), 1);
        }
      }),
    );
    await this.#underWay;
    if (failures.length > 0) throw failures.toSorted((a, b) => weight(b) - weight(a))[0];
  }

  async #isThere({ id }: CudaProcess): Promise<boolean> {
    const found = await readProcess(this.#request.procRoot, id.pid);
    return found?.stat.start === id.start && !isEnding(found);
  }

  /** A process that is becoming a CUDA process holds the GPU before the driver knows it: it is looked at again for a while. */
  async #lookUntilClear() {
    for (const began = performance.now(); ; await sleep(LOOK_MS)) {
      const seen = await this.#look(true);
      const isClear = seen.newcomers.length > 0 || seen.reasons.length === 0;
      if (isClear || performance.now() - began > BECOMING_MS) return seen;
    }
  }

  async #look(isCheckpointed = false) {
    const { calls, users } = this.#request;
    const now = await users();
    const { newcomers, reasons } = await lookAgain(calls, now, { known: this.processes, callMs: this.#limits.callMs });
    const left = now.filter(({ process }) => this.#held.some((held) => held.process.id.pid === process.stat.pid));
    return { newcomers, reasons: isCheckpointed ? [...reasons, ...leftoverProblems(left)] : [] };
  }

  #restless(newcomers: readonly CudaProcess[]): SnapshotError {
    const names = newcomers.map(({ innerPid, comm }) => `${innerPid} (${comm})`).join(', ');
    const message = `CUDA processes begin faster than they can be locked: ${names}`;
    return new SnapshotError('CUDA_BUSY', `${message}; let the workload start them all before it is ready`);
  }
}

/** How long the driver may take to initialise in a process of the workload. */
const BECOMING_MS = 3_000;
const LOOK_MS = 100;
/** A lock that is on its way when its time is over. */
const LOCK_GRACE_MS = 500;

const isCutOff = (error: unknown) => error instanceof CudaError && error.failure === 'died';

/** One that does not die comes first: its target must not be used again. Then hung ones, then what the driver says. */
function weight(error: unknown): number {
  if (!(error instanceof CudaError)) return 0;
  return { died: 1, driver: 2, hung: 3, undead: 4 }[error.failure];
}

function refused(reasons: readonly Reason[]): SnapshotError {
  const messages = reasons.map(({ message }) => message).join('; ');
  return new SnapshotError('CHECKPOINT_REFUSED', `the container cannot be checkpointed: ${messages}`, { reasons });
}
