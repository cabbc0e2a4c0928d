/** What the configuration says about calls of the driver. */
export interface CudaRules {
  readonly lockTimeoutSeconds: number;
  readonly callSeconds: number;
  readonly minimumBytesPerSecond: number;
}

/** How long calls of the driver may take. A call that takes longer is taken for hung. */
export interface CudaLimits {
  /** How long the driver waits for the GPU work of a process to end. */
  readonly lockTimeoutMs: number;
  /** For calls that move nothing. */
  readonly callMs: number;
  /** For calls that move device memory. */
  readonly moveMs: number;
  /** How long it is tried to bring a process back while the driver cannot be asked. */
  readonly patienceMs: number;
}

/** In calls that hang one after the other: two minutes, as `cuda.callSeconds` is by default. */
const PATIENCE_CALLS = 4;

/**
 * Derived from what is to be moved. `bytes` is the device memory of all that is moved at once: processes that share a GPU, or the way to it,
 * share its rate.
 */
export function cudaLimits(rules: CudaRules, bytes: number): CudaLimits {
  const callMs = rules.callSeconds * 1000;
  return {
    patienceMs: patienceMs(rules),
    lockTimeoutMs: rules.lockTimeoutSeconds * 1000,
    callMs,
    moveMs: callMs + Math.ceil((bytes / rules.minimumBytesPerSecond) * 1000),
  };
}

/** Steps that wait for a way back have this time in addition. */
export const patienceMs = ({ callSeconds }: Pick<CudaRules, 'callSeconds'>) => PATIENCE_CALLS * callSeconds * 1000;
