import type { Reason } from '../errors.ts';
import { driverProblems, type GpuRules, severalGpusProblem, sharingProblems } from './gpu-rules.ts';
import { describeGpu, describeGpus, mebibytes, type NodeGpu } from './gpus.ts';

/** What is compared of a GPU, on either side. */
export type ComparedGpu = Pick<
  NodeGpu,
  'uuid' | 'name' | 'memoryBytes' | 'freeBytes' | 'mig' | 'mps' | 'virtualization'
>;

/** A GPU that the workload saw when it was checkpointed, as the record has it. */
export interface SourceGpu extends ComparedGpu {
  /** Device memory that the processes of the workload held there, without what the driver keeps for itself. */
  readonly usedBytes: number;
}

export interface GpuSide<Gpu> {
  /** All that the container sees, in the order of their ordinals inside it. */
  readonly gpus: readonly Gpu[];
  /** Version of the kernel driver. */
  readonly driver: string;
}

/** The memory of GPU `from` goes to GPU `to`. Both are UUIDs. */
export interface GpuPair {
  readonly from: string;
  readonly to: string;
}

export interface DeviceMap {
  /**
   * What the driver is to be told: nothing where every GPU is the same one, else a pair for every GPU that the processes see, used or not,
   * since the driver refuses a map that leaves one out. In the order of the source's ordinals. Undefined where it cannot work.
   */
  readonly pairs: readonly GpuPair[] | undefined;
  /** Every reason why not. Empty exactly where there are pairs. */
  readonly reasons: readonly Reason[];
  readonly warnings: readonly Reason[];
}

/** A restore that runs out of device memory cannot be undone, and what the driver needs on the way is not known to the byte. */
const MARGIN_BYTES = 256 << 20;

/** Which GPU takes whose place, or every reason why none can. */
export function mapDevices(source: GpuSide<SourceGpu>, target: GpuSide<ComparedGpu>, rules: GpuRules): DeviceMap {
  const places = pairUp(source.gpus, target.gpus);
  const several = severalGpusProblem(Math.max(source.gpus.length, target.gpus.length), target.driver, rules);
  const reasons = [
    ...driverProblems({ source: source.driver, target: target.driver }),
    ...sharingProblems(source.gpus, 'source'),
    ...sharingProblems(target.gpus, 'target'),
    ...duplicates(source.gpus, 'source'),
    ...duplicates(target.gpus, 'target'),
    ...places.reasons,
    ...places.pairs.flatMap(memoryProblem),
    ...several.reasons,
  ];
  const { warnings } = several;
  if (reasons.length > 0) return { pairs: undefined, reasons, warnings };
  const pairs = places.pairs.map(([from, to]) => ({ from: from.uuid, to: to.uuid }));
  return { pairs: pairs.every(({ from, to }) => from === to) ? [] : pairs, reasons, warnings };
}

type Place = readonly [SourceGpu, ComparedGpu];

/** Each GPU of the source with the one that takes its place, in the source's order; or why there is none for some. */
function pairUp(
  source: readonly SourceGpu[],
  target: readonly ComparedGpu[],
): { readonly pairs: readonly Place[]; readonly reasons: readonly Reason[] } {
  const left = new Map(target.map((gpu) => [gpu.uuid, gpu]));
  const chosen = new Map<SourceGpu, ComparedGpu>();
  const take = (gpu: SourceGpu, place: ComparedGpu | undefined) => {
    if (place === undefined || !isAlike(gpu, place)) return;
    chosen.set(gpu, place);
    left.delete(place.uuid);
  };
  // All that stay where they were come first: else another might take the place of one of them.
  for (const gpu of source) take(gpu, left.get(gpu.uuid));
  for (const gpu of source)
    if (!chosen.has(gpu))
      take(
        gpu,
        [...left.values()].find((candidate) => isAlike(gpu, candidate)),
      );
  const pairs = source.flatMap((gpu): Place[] => {
    const place = chosen.get(gpu);
    return place === undefined ? [] : [[gpu, place]];
  });
  return { pairs, reasons: countProblem(source, target) ?? kindProblems(source, target) };
}

/** Only a GPU of the same model and with as much memory can take another's place. */
export function isAlike(a: ComparedGpu, b: ComparedGpu): boolean {
  return a.name === b.name && mebibytes(a.memoryBytes) === mebibytes(b.memoryBytes);
}

function countProblem(source: readonly ComparedGpu[], target: readonly ComparedGpu[]): Reason[] | undefined {
  if (source.length === target.length && source.length > 0) return undefined;
  return [
    {
      code: 'GPU_COUNT',
      message:
        source.length === 0
          ? 'the workload uses CUDA, and not one GPU of it is known'
          : 'the container does not see as many GPUs as the workload did',
      found: `${target.length}: ${describeGpus(target)}`,
      wanted: `${source.length || 'at least 1'}: ${describeGpus(source)}`,
      advice: 'Give the target container as many GPUs as the source had.',
    },
  ];
}

/** Where there are as many on both sides: models that are missing, and models that are there with other memory. */
function kindProblems(source: readonly ComparedGpu[], target: readonly ComparedGpu[]): Reason[] {
  const both = { found: describeGpus(target), wanted: describeGpus(source) };
  if (!isSameBag(source.map(modelOf), target.map(modelOf)))
    return [
      {
        code: 'GPU_MODEL',
        message: 'the GPUs of the container are of other models than those the workload ran on',
        ...both,
        advice: 'Schedule the pod on a node with the same GPU models.',
      },
    ];
  if (isSameBag(source.map(kindOf), target.map(kindOf))) return [];
  return [
    {
      code: 'GPU_MEMORY',
      message: 'GPUs of the same model have another memory size than those the workload ran on',
      ...both,
      advice: 'Schedule the pod on a node whose GPUs have the same memory; ECC and vGPU profiles change it.',
    },
  ];
}

const modelOf = ({ name }: ComparedGpu) => name;
const kindOf = (gpu: ComparedGpu) => `${gpu.name}\n${mebibytes(gpu.memoryBytes)}`;

function isSameBag(a: readonly string[], b: readonly string[]): boolean {
  const [left, right] = [a.toSorted(), b.toSorted()];
  return left.length === right.length && left.every((value, at) => value === right[at]);
}

function memoryProblem([from, to]: Place): Reason[] {
  // The workload may have filled its GPU to the last MiB, and a GPU like that one cannot offer more.
  const needed = from.usedBytes + Math.min(MARGIN_BYTES, from.freeBytes);
  if (to.freeBytes >= needed) return [];
  return [
    {
      code: 'GPU_MEMORY_FREE',
      message: `too little memory is free on ${to.uuid}, and a restore that runs out of it cannot be undone`,
      found: `${mebibytes(to.freeBytes)} MiB free of ${describeGpu(to)}`,
      wanted: `${Math.ceil(needed / (1 << 20))} MiB, of them ${mebibytes(from.usedBytes)} MiB that the workload held`,
      advice: 'End the other processes on that GPU, or restore onto a free one.',
    },
  ];
}

function duplicates(gpus: readonly ComparedGpu[], side: 'source' | 'target'): Reason[] {
  if (new Set(gpus.map(({ uuid }) => uuid)).size === gpus.length) return [];
  return [
    {
      code: 'GPU_LIST',
      message: `the list of GPUs of the ${side} names one twice`,
      found: describeGpus(gpus),
      wanted: 'each GPU once',
      advice:
        side === 'source' ? 'Make a new checkpoint.' : 'A defect of the agent or the driver: report it with the log.',
    },
  ];
}
