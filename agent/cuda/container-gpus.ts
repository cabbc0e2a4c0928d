import type { Logger } from 'pino';
import type { KubeClient } from '../../kube/client.ts';
import { SnapshotError } from '../errors.ts';
import type { ProcessId } from '../host/native.ts';
import { gpusOfUuids, isGivenByDra, pluginGpus } from './allocation.ts';
import { type DeviceNodes, type NodeMount, type NodeSources, readDeviceNodes } from './device-nodes.ts';
import { type PodPlace, readPodGpus } from './dra.ts';
import { GPU_DRIVER } from './dra-objects.ts';
import { migReason } from './gpu-rules.ts';
import { describeGpus, type NodeGpu } from './gpus.ts';
import { type CudaEnvironment, cudaEnvironment, inOrdinalOrder } from './ordinals.ts';
import type { ContainerDevices, PodResources } from './pod-resources.ts';

/** So many device nodes are named in a message. */
const CLOSED_SHOWN = 16;

/** Who may be asked. */
export interface GpuSources extends NodeSources {
  readonly log: Pick<Logger, 'debug' | 'warn'>;
  /** Undefined where pods are learned of from the container runtime alone. */
  readonly kube: KubeClient | undefined;
  /** Undefined where the configuration says so. */
  readonly podResources: PodResources | undefined;
}

/** The container, and what was seen of it before. */
export interface GpuContainer {
  readonly place: PodPlace;
  /** Its first process. */
  readonly id: ProcessId;
  /** Its mount table. */
  readonly mounts: readonly NodeMount[];
  /** NAME=value strings it was started with. */
  readonly env: readonly string[];
}

export interface ContainerGpus {
  /** Who said which GPUs it was given; `visible`: nobody, and what it sees is all that is known. */
  readonly source: 'dra' | 'podResources' | 'visible';
  /** All that it sees, in the order of their CUDA ordinals (see ordinals.ts). Of a privileged container these are all of the node. */
  readonly gpus: readonly NodeGpu[];
  /** Device nodes of GPUs that it may not open. */
  readonly closed: readonly string[];
  readonly environment: CudaEnvironment;
}

/** What a container was given. */
interface Given {
  readonly source: ContainerGpus['source'];
  readonly gpus: readonly NodeGpu[];
  readonly isPrivileged: boolean;
}

/**
 * Finds out which GPUs of the node a container has: what it was given, by DRA or by a device plugin, and what it sees in its /dev. Throws
 * GPU_IDENTITY where the two are not the same, and POD_GONE, CONTAINER_GONE, KUBERNETES_UNAVAILABLE or KUBELET_UNAVAILABLE where it could not be
 * found out now. A device node that the container may not open does not count: the driver's tools make such nodes, as may anybody inside.
 */
export async function readContainerGpus(
  sources: GpuSources,
  container: GpuContainer,
  nodeGpus: readonly NodeGpu[],
  signal?: AbortSignal,
): Promise<ContainerGpus> {
  const minors = nodeGpus.map(({ minor }) => minor);
  const nodes = await readDeviceNodes(sources, container, minors);
  sayWhatIsClosed(sources.log, nodes, container.place);
  const given = await readGiven(sources, container.place, nodeGpus, signal);
  const visible = visibleGpus(nodes, nodeGpus, container.place);
  if (nodes.migCapabilities.length > 0 && !given.isPrivileged) throw migInside(nodes, container.place);
  if (given.source !== 'visible') compare(given, { visible, closed: nodes.closed }, container.place);
  const environment = cudaEnvironment(container.env);
  return { source: given.source, gpus: inOrdinalOrder(visible, environment), closed: nodes.closed, environment };
}

function sayWhatIsClosed(log: GpuSources['log'], nodes: DeviceNodes, place: PodPlace): void {
  const container = nameOf(place);
  const { closed, unknown, untried } = nodes;
  if (closed.length > 0) log.debug({ container, closed }, 'device nodes of GPUs that the container may not open');
  if (unknown.length > 0)
    log.warn({ container, unknown, reason: untried }, 'GPUs count that the container may not be allowed to open');
}

/** Asks DRA first: a container that refers to claims has its GPUs from there. */
async function readGiven(
  sources: GpuSources,
  place: PodPlace,
  nodeGpus: readonly NodeGpu[],
  signal: AbortSignal | undefined,
): Promise<Given> {
  const pod = sources.kube === undefined ? undefined : await readPodGpus(sources.kube, place, signal);
  const isPrivileged = pod?.isPrivileged ?? false;
  const claimed = pod?.claimed ?? [];
  if (claimed.length > 0) return { source: 'dra', gpus: gpusOfUuids(claimed, nodeGpus), isPrivileged };
  const devices = await askKubelet(sources, place);
  if (devices !== undefined && isGivenByDra(devices))
    throw new SnapshotError(
      'GPU_IDENTITY',
      `kubelet says that ${GPU_DRIVER} gave GPUs to ${nameOf(place)}, and ${pod === undefined ? 'the agent does not use the Kubernetes API, which alone knows them' : 'its claims say otherwise'}`,
    );
  const gpus = devices === undefined ? [] : pluginGpus(devices, nodeGpus);
  return { source: gpus.length > 0 ? 'podResources' : 'visible', gpus, isPrivileged };
}

/** Undefined where kubelet is not asked, or there is none. */
async function askKubelet({ kube, podResources }: GpuSources, place: PodPlace): Promise<ContainerDevices | undefined> {
  if (podResources === undefined) return undefined;
  const isKubernetes = kube !== undefined;
  if (!isKubernetes && !(await podResources.isThere())) return undefined;
  const devices = await podResources.devicesOf(place);
  // A kubelet that was just restarted does not have its pods yet.
  if (devices === undefined && isKubernetes)
    throw new SnapshotError(
      'KUBELET_UNAVAILABLE',
      `kubelet on ${podResources.socketPath} does not know ${nameOf(place)}`,
    );
  return devices;
}

/** The GPUs whose device nodes are there, and may be opened. A node without a GPU behind it is none: the driver does not see one either. */
function visibleGpus(nodes: DeviceNodes, nodeGpus: readonly NodeGpu[], place: PodPlace): NodeGpu[] {
  if (nodes.impostors.length > 0)
    throw new SnapshotError(
      'GPU_IDENTITY',
      `in ${nameOf(place)} something has the name of an NVIDIA device and is none: ${nodes.impostors.join('; ')}`,
    );
  return nodes.hasControl ? nodeGpus.filter(({ minor }) => nodes.gpuMinors.includes(minor)) : [];
}

/** What was given must be what is seen. A privileged container sees more: every GPU of the node. */
function compare(
  { source, gpus, isPrivileged }: Given,
  { visible, closed }: { readonly visible: readonly NodeGpu[]; readonly closed: readonly string[] },
  place: PodPlace,
): void {
  const seen = new Set(visible);
  const isThere = gpus.every((gpu) => seen.has(gpu));
  if (isThere && (gpus.length === visible.length || isPrivileged)) return;
  const giver = source === 'dra' ? 'DRA' : 'a device plugin';
  throw new SnapshotError(
    'GPU_IDENTITY',
    `${nameOf(place)} was given ${describeGpus(gpus)} by ${giver}, and sees ${describeGpus(visible)} in its /dev${describeClosed(closed)}`,
  );
}

/** What to add to a message about the GPUs that a container sees. A container names its nodes, and makes as many as it likes. */
export function describeClosed(closed: readonly string[]): string {
  if (closed.length === 0) return '';
  const more = closed.length > CLOSED_SHOWN ? ` and ${closed.length - CLOSED_SHOWN} more` : '';
  return `; its device cgroup does not let it open ${closed.slice(0, CLOSED_SHOWN).join(', ')}${more}`;
}

function migInside({ migCapabilities }: DeviceNodes, place: PodPlace): SnapshotError {
  const found = migCapabilities.map((minor) => `nvidia-cap${minor}`).join(', ');
  const message = `${nameOf(place)} has the capabilities of MIG instances: ${found}`;
  return new SnapshotError('GPU_IDENTITY', message, { reasons: [migReason(found)] });
}

const nameOf = ({ namespace, pod, container }: PodPlace) => `container ${container} of pod ${namespace}/${pod}`;
