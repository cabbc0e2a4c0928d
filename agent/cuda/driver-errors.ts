import { type ErrorCode, SnapshotError } from '../errors.ts';

/** What a CUDA worker can be asked for, as it is called in its line protocol. */
export type CudaCall = 'gpus' | 'processes' | 'state' | 'restore-thread' | 'lock' | 'checkpoint' | 'restore' | 'unlock';

/** Why a call failed: the driver said no; the worker ended in the middle; it hung and was killed; it hung and does not die. */
type CudaFailure = 'driver' | 'died' | 'hung' | 'undead';

/** A call of the CUDA driver that failed. */
export class CudaError extends SnapshotError {
  readonly failure: CudaFailure;

  constructor(
    failure: CudaFailure,
    code: ErrorCode,
    message: string,
    options?: ConstructorParameters<typeof SnapshotError>[2],
  ) {
    super(code, message, options);
    this.failure = failure;
  }
}

/** How the driver refused, as a worker tells it. */
export interface DriverAnswer {
  /** `CUDA_ERROR_NOT_READY` */
  readonly name: string;
  /** `device not ready` */
  readonly text: string;
  /** `cuCheckpointProcessLock` */
  readonly call: string;
}

const PEERS =
  'GPUs that reach into each other cannot be restored: run the workload with NCCL_P2P_DISABLE=1, NCCL_NVLS_ENABLE=0 and ' +
  'NCCL_IB_DISABLE=1, and without peer access, symmetric memory or CUDA IPC';

/** What to do about an answer of the driver. The first row that fits counts; seen on driver 580 where a page says so (docs/gpu.md). */
const ADVICE: readonly { readonly call?: CudaCall; readonly name: RegExp; readonly advice: string }[] = [
  {
    call: 'lock',
    name: /_NOT_READY$/,
    advice:
      'its GPU work does not end: a collective waits for another process, or a kernel runs for ever; let the workload finish all work before it is ready',
  },
  { call: 'restore', name: /_NOT_SUPPORTED$/, advice: PEERS },
  { call: 'restore', name: /_INVALID_VALUE$/, advice: `${PEERS}; or the map of GPUs leaves out one that it sees` },
  {
    call: 'restore',
    name: /_OUT_OF_MEMORY$/,
    advice:
      'the GPU has too little free memory, and the process cannot be brought back; free the GPU, use a new container',
  },
  {
    call: 'checkpoint',
    name: /_OUT_OF_MEMORY$/,
    advice: 'host memory cannot hold the copies of device memory; raise the memory limit, or free device memory first',
  },
  {
    call: 'checkpoint',
    name: /_NOT_SUPPORTED$/,
    advice: 'it holds what this driver cannot checkpoint: memory shared with other processes (CUDA IPC), for one',
  },
  {
    name: /_ILLEGAL_STATE$/,
    advice: 'the process is not in the state that the call needs; does anything else checkpoint it?',
  },
  {
    name: /_(NOT_PERMITTED|INVALID_CONTEXT)$/,
    advice: 'the agent may not act on this process: it must run privileged',
  },
  {
    name: /_(SYSTEM_NOT_READY|SYSTEM_DRIVER_MISMATCH|DEVICE_UNAVAILABLE|DEVICES?_LOST)$/,
    advice: 'the driver of this node is not well: look at dmesg and nvidia-smi',
  },
];
const NOTHING_KNOWN = 'look at dmesg for messages of the driver (NVRM, Xid)';

function adviceFor(call: CudaCall, name: string): string {
  return ADVICE.find((row) => (row.call ?? call) === call && row.name.test(name))?.advice ?? NOTHING_KNOWN;
}

/** What an answer of the driver to a call about `who` means. */
export function driverError(call: CudaCall, who: string, answer: DriverAnswer): CudaError {
  const advice = adviceFor(call, answer.name);
  const isBusy = call === 'lock' && answer.name.endsWith('_NOT_READY');
  const message = `${answer.call || call}${who && ` of ${who}`}: ${answer.name} (${answer.text})`;
  const reason = { code: answer.name, message, found: answer.text, wanted: '', advice: `${sentence(advice)}.` };
  return new CudaError('driver', isBusy ? 'CUDA_BUSY' : 'CUDA_FAILED', `${message}: ${advice}`, { reasons: [reason] });
}

const sentence = (text: string) => `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
