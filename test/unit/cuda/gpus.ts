import type { NodeGpu } from '../../../agent/cuda/gpus.ts';

export const GIB = 1024 ** 3;

/** The UUID of the nth GPU in the world. */
export const uuidOf = (n: number) => `GPU-00000000-0000-0000-0000-${n.toString(16).padStart(12, '0')}`;

/** A GPU of a node: the nth in the world, in the nth slot. */
export function nodeGpu(n: number, changes: Partial<NodeGpu> = {}): NodeGpu {
  return {
    index: n,
    uuid: uuidOf(n),
    name: 'NVIDIA H200',
    minor: n,
    busId: `00000000:${(n + 1).toString(16).padStart(2, '0')}:00.0`,
    memoryBytes: 140 * GIB,
    freeBytes: 139 * GIB,
    mig: false,
    mps: false,
    virtualization: 'none',
    ...changes,
  };
}
