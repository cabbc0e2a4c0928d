import { SnapshotError } from '../errors.ts';
import { GPU_DRIVER } from './dra-objects.ts';
import { migReason } from './gpu-rules.ts';
import { isGpuUuid, type NodeGpu } from './gpus.ts';
import type { ContainerDevices } from './pod-resources.ts';

/** How device plugins name a whole GPU: by UUID, or, on GKE, by the minor of its device node. */
type GpuId = { readonly uuid: string } | { readonly minor: number };

/** Resources whose devices are GPUs, whatever their ids look like. */
const GPU_RESOURCES = ['nvidia.com/gpu', 'nvidia.com/gpu.shared'];
const VENDOR = 'nvidia.com/';
const MIG_RESOURCE = 'nvidia.com/mig-';

/**
 * The GPUs of this node that device plugins gave to a container, in the order of kubelet's answer, each once. Throws GPU_IDENTITY for
 * MIG instances, for ids that no known plugin uses, and for GPUs that the driver of this node does not know.
 */
export function pluginGpus({ plugin }: ContainerDevices, nodeGpus: readonly NodeGpu[]): NodeGpu[] {
  const found = new Set<NodeGpu>();
  for (const { resource, ids } of plugin) {
    if (!resource.startsWith(VENDOR)) continue;
    for (const id of ids) {
      const gpu = readId(resource, id);
      if (gpu !== undefined) found.add(gpuOf(gpu, nodeGpus, `${resource} ${id}`));
    }
  }
  return [...found];
}

/** Whether DRA gave the container a GPU, which only the Kubernetes API can say more about. */
export function isGivenByDra({ claimed }: ContainerDevices): boolean {
  return claimed.some(({ driver }) => driver === GPU_DRIVER);
}

/** The GPUs of these UUIDs. Throws GPU_IDENTITY where the driver of this node does not know one. */
export function gpusOfUuids(uuids: readonly string[], nodeGpus: readonly NodeGpu[]): NodeGpu[] {
  return uuids.map((uuid) => gpuOf({ uuid }, nodeGpus, uuid));
}

/** Undefined for what is no GPU: the vendor's name is in front of other resources too. */
function readId(resource: string, id: string): GpuId | undefined {
  if (resource.startsWith(MIG_RESOURCE) || /^MIG-|^nvidia\d+\/gi\d+/.test(id))
    throw new SnapshotError('GPU_IDENTITY', `the container was given a MIG instance: ${resource} ${id}`, {
      reasons: [migReason(`${resource} ${id}`)],
    });
  // Where GPUs are shared, an id is given out several times, with a number behind.
  const uuid = id.replace(/::\d+$/, '');
  if (isGpuUuid(uuid)) return { uuid };
  const [, minor] = /^nvidia(\d{1,3})(?:\/vgpu\d+)?$/.exec(id) ?? [];
  if (minor !== undefined) return { minor: Number(minor) };
  if (GPU_RESOURCES.includes(resource))
    throw new SnapshotError('GPU_IDENTITY', `kubelet names a GPU in a way that is not known: ${resource} ${id}`);
  return undefined;
}

function gpuOf(id: GpuId, nodeGpus: readonly NodeGpu[], what: string): NodeGpu {
  const gpu = nodeGpus.find((one) => ('uuid' in id ? one.uuid === id.uuid : one.minor === id.minor));
  if (gpu !== undefined) return gpu;
  throw new SnapshotError(
    'GPU_IDENTITY',
    `the container was given ${what}, and the driver of this node knows ${nodeGpus.map(({ uuid }) => uuid).join(', ') || 'no GPU'}`,
  );
}
