import type { CudaCalls, CudaProcess, CudaState } from '../../../agent/cuda/calls.ts';
import { type CudaCall, CudaError, driverError } from '../../../agent/cuda/driver-errors.ts';
import type { CudaWorkers } from '../../../agent/cuda/workers.ts';

/** How a call goes wrong. `-after`: the driver did it all the same, and only the answer is lost. */
export type Fault = 'refused' | 'died' | 'died-after' | 'hung' | 'hung-after' | 'undead';

export interface FakeProcess {
  state: CudaState;
  readonly bytes?: number;
  readonly gpu?: string;
  /** The driver cannot restore it, and says so with this error. */
  readonly unrestorable?: string;
}

/** A driver without a GPU: processes with their states, and faults at the calls that a test names. */
export class FakeDriver {
  readonly processes = new Map<number, FakeProcess>();
  /** `lock 10`, `checkpoint 10` … in the order in which they came. */
  readonly asked: string[] = [];
  /** Told before each call; what it returns goes wrong. */
  faultAt: (call: CudaCall, pid: number, number: number) => Fault | undefined = () => undefined;
  /** Told before each call. */
  before: (call: CudaCall, pid: number) => Promise<void> | void = () => undefined;

  readonly calls: CudaCalls = {
    state: async (process) => await this.#call('state', process, ({ state }) => state),
    restoreThread: async (process) => await this.#call('restore-thread', process, () => process.id.pid + 1000),
    lock: async (process) => await this.#move('lock', process, 'running', 'locked'),
    checkpoint: async (process) => await this.#move('checkpoint', process, 'locked', 'checkpointed'),
    restore: async (process, pairs) => {
      this.pairs.push(pairs.map(({ from, to }) => `${from}=${to}`).join(','));
      return await this.#move('restore', process, 'checkpointed', 'locked');
    },
    unlock: async (process) => await this.#move('unlock', process, 'locked', 'running'),
    usage: async () =>
      [...this.processes].flatMap(([pid, { state, bytes = 0, gpu = 'GPU-0' }]) =>
        state === 'checkpointed' ? [] : [{ pid, gpu, bytes }],
      ),
  };
  /** The maps of all restores. */
  readonly pairs: string[] = [];

  /** The same driver behind the line protocol of workers. */
  readonly workers: Pick<CudaWorkers, 'ask' | 'prepare'> = {
    prepare: () => undefined,
    ask: async ({ call, args, shape }) => {
      const process = { id: { pid: Number(args[0]), start: 0 }, innerPid: 0, comm: '' };
      const state = call === 'state' ? await this.calls.state(process, 0) : undefined;
      if (call === 'restore') await this.calls.restore(process, [], 0);
      if (call === 'unlock') await this.calls.unlock(process, 0);
      return shape.parse({ ok: true, seconds: 0, state });
    },
  };

  add(pid: number, process: Partial<FakeProcess> = {}): CudaProcess {
    this.processes.set(pid, { state: 'running', ...process });
    return { id: { pid, start: 1000 }, innerPid: pid - 9, comm: 'worker' };
  }

  states(): Record<number, CudaState> {
    return Object.fromEntries([...this.processes].map(([pid, { state }]) => [pid, state]));
  }

  async #move(call: CudaCall, process: CudaProcess, from: CudaState, to: CudaState): Promise<number> {
    return await this.#call(call, process, (known) => {
      if (call === 'restore' && known.unrestorable !== undefined) throw refusal(call, process, known.unrestorable);
      if (known.state !== from) throw refusal(call, process, 'CUDA_ERROR_ILLEGAL_STATE');
      known.state = to;
      return 0.01;
    });
  }

  async #call<T>(call: CudaCall, process: CudaProcess, act: (known: FakeProcess) => T): Promise<T> {
    const { pid } = process.id;
    const number = this.asked.push(`${call} ${pid}`);
    await this.before(call, pid);
    const fault = this.faultAt(call, pid, number);
    const known = this.processes.get(pid);
    if (fault === 'refused') throw refusal(call, process, 'CUDA_ERROR_UNKNOWN');
    if (fault === 'died' || fault === 'hung' || fault === 'undead')
      throw new CudaError(fault, 'CUDA_FAILED', `${fault} in ${call}`);
    if (known === undefined) throw refusal(call, process, 'CUDA_ERROR_NOT_INITIALIZED');
    const result = act(known);
    if (fault === 'died-after') throw new CudaError('died', 'CUDA_WORKER_DIED', `died after ${call}`);
    if (fault === 'hung-after') throw new CudaError('hung', 'CUDA_FAILED', `hung after ${call}`);
    return result;
  }
}

function refusal(call: CudaCall, process: CudaProcess, name: string): CudaError {
  return driverError(call, `process ${process.innerPid}`, {
    name,
    text: 'as told',
    call: `cuCheckpointProcess ${call}`,
  });
}
