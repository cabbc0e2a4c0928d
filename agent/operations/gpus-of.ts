import { z } from 'zod';
import { readMounts } from '../container/mounts.ts';
import { type ContainerGpus, readContainerGpus } from '../cuda/container-gpus.ts';
import { type NodeGpu, readGpus } from '../cuda/gpus.ts';
import { asSnapshotError, type Reason } from '../errors.ts';
import type { AgentContext } from './context.ts';
import type { Target } from './target.ts';

/** The GPUs that a container sees, in the order of their ordinals inside it; or why that is not known. */
export interface SeenGpus {
  readonly gpus: readonly NodeGpu[];
  readonly source: ContainerGpus['source'];
  readonly closed: ContainerGpus['closed'];
  readonly environment: ContainerGpus['environment'];
  readonly reasons: readonly Reason[];
}

const anything = z.looseObject({ ok: z.literal(true) });

/** All GPUs of the node, as the driver describes them. */
export async function gpusOfNode({ config, cuda }: Pick<AgentContext, 'config' | 'cuda'>): Promise<NodeGpu[]> {
  const request = { call: 'gpus' as const, args: [], who: '', shape: anything };
  return readGpus(await cuda.ask({ ...request, deadlineMs: config.cuda.callSeconds * 1000 }));
}

/** Asks everybody who knows. What is wrong with the GPUs of the container is a reason; what could not be asked now is thrown. */
export async function gpusOf(context: AgentContext, target: Target): Promise<SeenGpus> {
  const { config, gpuSources } = context;
  const nodeGpus = await gpusOfNode(context);
  const { id } = target.main;
  const mounts = await readMounts(config.host.procRoot, id.pid);
  const container = { place: target.place, id, mounts, env: target.running.env };
  try {
    return { ...(await readContainerGpus(gpuSources, container, nodeGpus)), reasons: [] };
  } catch (error) {
    const failure = asSnapshotError(error);
    if (failure.code !== 'GPU_IDENTITY') throw failure;
    const { code, message, advice, reasons } = failure;
    const reason = { code, message, found: message, wanted: 'GPUs that are told by all alike', advice };
    const environment = { visibleDevices: undefined, deviceOrder: undefined };
    return { gpus: [], source: 'visible', closed: [], environment, reasons: reasons.length > 0 ? reasons : [reason] };
  }
}
