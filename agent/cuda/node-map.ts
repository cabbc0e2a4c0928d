import type { Reason } from '../errors.ts';
import { type ComparedGpu, type GpuSide, isAlike, mapDevices, type SourceGpu } from './device-map.ts';
import { type GpuRules, sharingProblems } from './gpu-rules.ts';
import { describeGpus } from './gpus.ts';

/** Why these GPUs can be on a node and no container of it take the workload: told of the node, not of a container. */
const OF_NODE: Readonly<Record<string, Pick<Reason, 'message' | 'advice'>>> = {
  GPU_COUNT: {
    message: 'the node does not have as many GPUs as the workload saw',
    advice: 'Use a node with as many GPUs as the source had.',
  },
  GPU_MODEL: {
    message: 'the node lacks GPUs of the models that the workload ran on',
    advice: 'Use a node with the same GPU models.',
  },
};

/**
 * Every reason why no container of this node can take over the workload's GPUs. Which GPUs a container will be given is not known: the
 * best that are there are compared.
 */
export function nodeProblems(
  source: GpuSide<SourceGpu>,
  node: GpuSide<ComparedGpu>,
  rules: GpuRules,
): readonly Reason[] {
  const { reasons } = mapDevices(source, { ...node, gpus: bestGpus(source.gpus, node.gpus) }, rules);
  return reasons.map((reason) => {
    const isOfKind = reason.code === 'GPU_MODEL' || reason.code === 'GPU_MEMORY';
    return { ...reason, ...OF_NODE[reason.code], ...(isOfKind && { found: describeGpus(node.gpus) }) };
  });
}

/** As many as the workload saw, where there are so many: such as can take a place first, and of these the whole and the emptiest. */
function bestGpus(source: readonly SourceGpu[], gpus: readonly ComparedGpu[]): ComparedGpu[] {
  if (source.length === 0) return [...gpus];
  const problems = (gpu: ComparedGpu) => sharingProblems([gpu], 'target').length;
  const left = gpus.toSorted((a, b) => problems(a) - problems(b) || b.freeBytes - a.freeBytes);
  const chosen = new Map<SourceGpu, ComparedGpu>();
  for (const gpu of source.toSorted((a, b) => b.usedBytes - a.usedBytes)) {
    const at = left.findIndex((candidate) => isAlike(gpu, candidate));
    const [place] = at < 0 ? [] : left.splice(at, 1);
    if (place !== undefined) chosen.set(gpu, place);
  }
  // In the source's order: so the places are given out.
  return [...source.flatMap((gpu) => chosen.get(gpu) ?? []), ...left].slice(0, source.length);
}
