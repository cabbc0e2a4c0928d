import { host, REPOSITORY } from '../real/environment/host.ts';

export type Limits = Readonly<Record<string, number | string>>;

let measured: Promise<Limits> | undefined;

/** What the machine can do, in GB/s, measured once in a run. `directory` says which disk. */
export function machineLimits(directory: string): Promise<Limits> {
  measured ??= host(['python3', `${REPOSITORY}/test/gpu/workers/limits.py`, directory], { timeoutMs: 180_000 }).then(
    (text) => JSON.parse(text) as Limits,
  );
  return measured;
}
