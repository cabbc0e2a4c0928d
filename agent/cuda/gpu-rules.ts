import type { Reason } from '../errors.ts';
import { describeGpus, type NodeGpu } from './gpus.ts';

/** The configuration that has a say. */
export interface GpuRules {
  readonly multiGpuBelowDriver590: 'warn' | 'refuse';
}

type Side = 'source' | 'target';
type RuledGpu = Pick<NodeGpu, 'uuid' | 'name' | 'memoryBytes' | 'mig' | 'mps' | 'virtualization'>;

/** The first driver whose checkpoint calls cover what a worker holds. */
const DRIVER_FLOOR = 580;
/** Below it several GPUs in one container have failed where peer access or NCCL was in use. */
const SEVERAL_GPUS_FLOOR = 590;

/** What stands against a checkpoint of a container with these GPUs, seen beforehand. */
export function sourceProblems(
  gpus: readonly RuledGpu[],
  driver: string,
  rules: GpuRules,
): { readonly reasons: readonly Reason[]; readonly warnings: readonly Reason[] } {
  const several = severalGpusProblem(gpus.length, driver, rules);
  const reasons = [...versionProblems(driver, 'source'), ...sharingProblems(gpus, 'source'), ...several.reasons];
  return { reasons, warnings: several.warnings };
}

/** What stands against restoring on one driver what was checkpointed with another. */
export function driverProblems(drivers: { readonly source: string; readonly target: string }): Reason[] {
  const source = parseVersion(drivers.source);
  const target = parseVersion(drivers.target);
  const each = [...versionProblems(drivers.source, 'source'), ...versionProblems(drivers.target, 'target')];
  if (source === undefined || target === undefined) return each;
  const [was = 0, is = 0] = [source[0], target[0]];
  const both = { found: drivers.target, wanted: `${drivers.source} or a later one of branch ${was}` };
  if (was !== is)
    return [
      ...each,
      {
        code: 'GPU_DRIVER_BRANCH',
        message: 'the GPU driver is of another branch than the one the workload was checkpointed with',
        ...both,
        advice: 'Schedule the pod on a node with that driver branch, or make a new checkpoint.',
      },
    ];
  if (compareVersions(target, source) >= 0) return each;
  return [
    ...each,
    {
      code: 'GPU_DRIVER_OLDER',
      message: 'the GPU driver is older than the one the workload was checkpointed with',
      ...both,
      advice: 'Upgrade the driver of this node, or make a new checkpoint.',
    },
  ];
}

function versionProblems(driver: string, side: Side): Reason[] {
  const version = parseVersion(driver);
  if (version === undefined)
    return [
      {
        code: 'GPU_DRIVER_UNKNOWN',
        message: `the version of the GPU driver of the ${side} is not known`,
        found: driver,
        wanted: 'a version such as 580.95.05',
        advice:
          side === 'source' ? 'Make a new checkpoint.' : 'Look at the driver installation of this node: nvidia-smi.',
      },
    ];
  if ((version[0] ?? 0) >= DRIVER_FLOOR) return [];
  return [
    {
      code: 'GPU_DRIVER_FLOOR',
      message: `the GPU driver of the ${side} is too old to checkpoint CUDA processes reliably`,
      found: driver,
      wanted: `${DRIVER_FLOOR} or later`,
      advice: 'Upgrade the GPU driver of the node.',
    },
  ];
}

/** Several GPUs on a driver that is known to fail with some of them: a warning, unless the configuration refuses. */
export function severalGpusProblem(
  count: number,
  driver: string,
  rules: GpuRules,
): { readonly reasons: readonly Reason[]; readonly warnings: readonly Reason[] } {
  const major = parseVersion(driver)?.[0];
  if (count < 2 || major === undefined || major >= SEVERAL_GPUS_FLOOR) return { reasons: [], warnings: [] };
  const problem: Reason = {
    code: 'GPU_SEVERAL',
    message:
      'below this driver version workloads with several GPUs can fail to come back, where peer access or NCCL is in use',
    found: `${count} GPUs, driver ${driver}`,
    wanted: `driver ${SEVERAL_GPUS_FLOOR} or later`,
    advice:
      'Upgrade the driver; or prove each checkpoint by restoring it at the source; or give the container one GPU.',
  };
  return rules.multiGpuBelowDriver590 === 'refuse'
    ? { reasons: [problem], warnings: [] }
    : { reasons: [], warnings: [problem] };
}

/** GPUs that are cut up or shared in ways the driver's checkpoint does not know. What the driver did not tell is no evidence. */
export function sharingProblems(gpus: readonly RuledGpu[], side: Side): Reason[] {
  const reasons: Reason[] = [];
  const mig = gpus.filter((gpu) => gpu.mig === true);
  if (mig.length > 0) reasons.push(migReason(`${side}: ${describeGpus(mig)}`));
  const mps = gpus.filter((gpu) => gpu.mps === true);
  if (mps.length > 0)
    reasons.push({
      code: 'GPU_MPS',
      message: `an MPS server holds a GPU of the ${side}, and its clients cannot be checkpointed or restored`,
      found: describeGpus(mps),
      wanted: 'GPUs without MPS',
      advice: 'Stop the MPS control daemon there, or use a node without it.',
    });
  const virtual = gpus.filter(({ virtualization }) => !isWhole(virtualization));
  if (virtual.length > 0)
    reasons.push({
      code: 'GPU_VIRTUAL',
      message: `a GPU of the ${side} is virtual`,
      found: virtual.map((gpu) => `${describeGpus([gpu])}: ${gpu.virtualization}`).join(', '),
      wanted: 'whole GPUs, of the machine or passed through to it',
      advice: 'Use a node with whole GPUs.',
    });
  return reasons;
}

/** Whether a GPU is cut into MIG instances or one of these was given to a container: the driver cannot checkpoint either. */
export function migReason(found: string): Reason {
  return {
    code: 'GPU_MIG',
    message: 'MIG is in use, and CUDA processes on instances cannot be checkpointed or restored',
    found,
    wanted: 'GPUs without MIG',
    advice: 'Use a node whose GPUs are not partitioned.',
  };
}

/** A GPU that a hypervisor passes through is whole, as far as its driver is concerned: clouds have hardly any other. */
function isWhole(virtualization: string | null): boolean {
  return virtualization === null || /^(none|pass-?through)$/i.test(virtualization);
}

/** The numbers of `580.159.04`; undefined where it is no version. */
function parseVersion(text: string): number[] | undefined {
  return /^\d{1,5}(\.\d{1,5}){1,3}$/.test(text) ? text.split('.').map(Number) : undefined;
}

function compareVersions(a: readonly number[], b: readonly number[]): number {
  for (let at = 0; at < Math.max(a.length, b.length); at++) {
    const difference = (a[at] ?? 0) - (b[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
