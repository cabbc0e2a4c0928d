import type { ImageMount } from './mounts.ts';
import type { Inventory, Process, SeccompChains } from './processes.ts';
import type { Resources } from './resources.ts';

/** Everything of the images that admission judges. */
export interface Images {
  readonly inventory: Inventory;
  readonly processes: readonly Process[];
  readonly mounts: readonly ImageMount[];
  readonly seccompChain: SeccompChains;
  readonly resources: Resources;
}

/** What the target container (the placeholder's PID 1) is and has. */
export interface AdmissionTarget {
  /** The mount points that the checkpoint's record names. */
  readonly recordedMountPoints: readonly string[];
  /** The mount points of the placeholder. */
  readonly mountPoints: readonly string[];
  readonly boundingCaps: bigint;
  /** Under no_new_privs nothing in the target can get more than this. */
  readonly permittedCaps: bigint;
  readonly noNewPrivs: boolean;
  /** 0 none, 1 strict, 2 filter. */
  readonly seccompMode: number;
  /** In hex, oldest first. */
  readonly seccompFilters: readonly string[];
  readonly lsmLabel: string | undefined;
  /** Keys that the agent provides, in CRIU's notation: `mnt[/dev]`, `extNetNs`, `tty[8800:36]`. */
  readonly externalKeys: readonly string[];
}

/** Advice for what no checkpoint of this agent contains. */
export const FOREIGN = 'Do not use the artifact before you know who wrote it.';
/** Advice for a target that differs from the source. */
export const SAME_POD = 'Give the target pod the same security context and mounts as the source.';

/** Values for a reason: each once, sorted, separated by spaces; "none" for none. */
export const list = (values: Iterable<string>) => [...new Set(values)].sort().join(' ') || 'none';
