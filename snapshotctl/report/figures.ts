import type { CheckpointRecord, VerificationMessage } from '../../contract/agent-api/messages.ts';

/** A rate that somebody knows the storage or the machine to reach. */
export interface Limit {
  readonly name: string;
  readonly bytesPerSecond: number;
  readonly source: string;
}

export interface Rate {
  readonly name: string;
  readonly bytes: number;
  readonly seconds: number;
  readonly bytesPerSecond: number;
  /** How it is reckoned. */
  readonly source: string;
}

/** Steps in which the source stands still. */
export const PAUSED_STEPS: ReadonlySet<string> = new Set([
  'cuda-lock',
  'cuda-checkpoint',
  'criu-dump',
  'resume',
  'stop',
]);

/** What bytes were moved in which step, where the record says both. */
export function ratesOf({ sizes, timings }: CheckpointRecord): Rate[] {
  if (sizes === null) return [];
  const { criu_bytes: criu, bulk_bytes: bulk, zero_bytes: zero, device_bytes: device, total_bytes: total } = sizes;
  const captured = criu + bulk + zero + sizes.rootfs_bytes + sizes.shm_bytes;
  const whole = timings.reduce((sum, { seconds }) => sum + seconds, 0);
  const of = (step: string) => timings.find((timing) => timing.step === step)?.seconds ?? 0;
  const rates: Omit<Rate, 'bytesPerSecond'>[] = [
    {
      name: 'cuda-checkpoint',
      bytes: device,
      seconds: of('cuda-checkpoint'),
      source: 'device memory, by the time of the step',
    },
    {
      name: 'criu-dump',
      bytes: captured,
      seconds: of('criu-dump'),
      source: 'memory with its zeros, changed files and shared memory, by the time of the step',
    },
    {
      name: 'finalize',
      bytes: bulk + zero,
      seconds: of('finalize'),
      source: 'large memory with its zeros, by the time of the step',
    },
    {
      name: 'until the record',
      bytes: total,
      seconds: whole,
      source: 'all files, by the time of all steps until the record was written',
    },
  ];
  return rates
    .filter(({ bytes, seconds }) => bytes > 0 && seconds > 0)
    .map((rate) => ({ ...rate, bytesPerSecond: rate.bytes / rate.seconds }));
}

/** What the agent reads and compares now, as a limit of what a restore can read. */
export function verificationLimit({ bytes, seconds }: VerificationMessage, node: string): Limit | undefined {
  if (bytes === 0 || seconds === 0) return undefined;
  return {
    name: 'read and verified now',
    bytesPerSecond: bytes / seconds,
    source: `measured for this report: node ${node} read all files from the volume and compared their digests`,
  };
}

const LIMIT = /^([^=]{1,40})=\s*([0-9]+(?:\.[0-9]+)?)\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)(?:\/s)?$/i;
const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
  tib: 1024 ** 4,
};

/** `NAME=2.4GB/s`, or undefined where it is none. */
export function limitOf(text: string): Limit | undefined {
  const [, name = '', amount = '', unit = ''] = LIMIT.exec(text) ?? [];
  const bytesPerSecond = Number(amount) * (UNITS[unit.toLowerCase()] ?? 0);
  if (name.trim() === '' || !(bytesPerSecond > 0)) return undefined;
  return { name: name.trim(), bytesPerSecond, source: 'given on the command line' };
}
