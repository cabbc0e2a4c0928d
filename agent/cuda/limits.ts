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
}

/**
 * Derived from what is to be moved. `bytes` is the device memory of all that is moved at once: processes that share a GPU, or the way to it,
 * share its rate.
 */
export function cudaLimits(rules: CudaRules, bytes: number): CudaLimits {
  const callMs = rules.callSeconds * 1000;
  return {
    lockTimeoutMs: rules.lockTimeoutSeconds * 1000,
    callMs,
    moveMs: callMs + Math.ceil((bytes / rules.minimumBytesPerSecond) * 1000),
  };
}
