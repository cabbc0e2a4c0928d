import type { ContainerReference, StorageReference } from '../../contract/agent-api/messages.ts';
import { ANNOTATIONS } from '../../contract/keys.ts';
import type { Cluster } from '../cluster.ts';
import { CommandError } from '../failure.ts';
import { visible } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';
import { getPod, listPods, type PodObject } from './agents.ts';
import { THROUGH_HINT } from './failure.ts';
import type { VolumeFlags } from './flags.ts';
import { type Reach, type ReachedAgent, withReach } from './open.ts';

/** What the pods of podMount mode call their volume of artifacts. */
const VOLUME = 'checkpoint-storage';

export interface ReachedVolume extends ReachedAgent {
  /** For the requests; undefined where the agent mounts the volume itself. */
  readonly storage: StorageReference | undefined;
}

/**
 * Does a command's work with an agent that reaches the volume: one that mounts it, or that of the node where the container of --through runs.
 * Without that flag in podMount mode it is a running pod of the namespace that has the volume.
 */
export async function withVolume<T>(
  flags: VolumeFlags,
  terminal: Terminal,
  work: (volume: ReachedVolume, reach: Reach) => Promise<T>,
): Promise<T> {
  return await withReach(
    flags,
    terminal,
    async (reach) => await work(await reachVolume(flags, terminal, reach), reach),
  );
}

/** The same without its end: for who needs the reach for more than the volume. */
export async function reachVolume(flags: VolumeFlags, terminal: Terminal, reach: Reach): Promise<ReachedVolume> {
  const { cluster } = reach;
  if (flags.through !== undefined) {
    const named = parseThrough(flags.through);
    if (cluster === undefined) return withStorage(await reach.agent(), referenceOf(named, flags), flags.basePath);
    const pod = await getPod(cluster, cluster.namespace, named.pod);
    return await throughPod(flags, reach, pod, named.container);
  }
  const agent = await reach.agent(flags.node);
  const { access_mode: mode, node } = await agent.client.getNodeInfo({ signal: terminal.signal });
  if (mode !== 'ACCESS_MODE_POD_MOUNT') return { ...agent, storage: undefined };
  if (cluster === undefined)
    throw new CommandError(
      'usage',
      `${agent.name} reaches volumes only through containers (podMount). ${THROUGH_HINT}`,
    );
  const pod = await podWithVolume(cluster, flags.node);
  terminal.err.write(`through pod ${visible(`${pod.metadata.namespace}/${pod.metadata.name}`)}\n`);
  if (pod.spec?.nodeName === node) return withStorage(agent, containerOf(pod, undefined), basePathOf(flags, pod));
  return await throughPod(flags, reach, pod, undefined);
}

/** By the agent of the pod's node. */
async function throughPod(
  { node, ...flags }: VolumeFlags,
  reach: Reach,
  pod: PodObject,
  container: string | undefined,
): Promise<ReachedVolume> {
  const at = pod.spec?.nodeName;
  const name = visible(pod.metadata.name);
  if (at === undefined || pod.status?.phase !== 'Running')
    throw new CommandError('failed', `pod ${name} does not run: its volume cannot be reached through it`);
  if (node !== undefined && node !== at)
    throw new CommandError('usage', `pod ${name} runs on node ${visible(at)}, not on ${node}: leave out --node`);
  return withStorage(await reach.agent(at), containerOf(pod, container), basePathOf(flags, pod));
}

function withStorage(agent: ReachedAgent, through: ContainerReference, basePath: string | undefined): ReachedVolume {
  return { ...agent, storage: { through, ...(basePath !== undefined && { base_path: basePath }) } };
}

interface Named {
  readonly pod: string;
  readonly container: string | undefined;
}

function parseThrough(text: string): Named {
  const [pod = '', container, ...rest] = text.split('/');
  if (pod === '' || container === '' || rest.length > 0)
    throw new CommandError(
      'usage',
      `--through ${visible(text)} is not POD or POD/CONTAINER; the namespace is --namespace`,
    );
  return { pod, container };
}

/** Without a cluster nobody can say which container of a pod has the volume. */
function referenceOf({ pod, container }: Named, { namespace }: VolumeFlags): ContainerReference {
  if (container === undefined || namespace === undefined)
    throw new CommandError('usage', 'with --socket or --address, --through needs POD/CONTAINER and --namespace');
  return { namespace, pod, container };
}

/** The named container, else the one that mounts the volume, else the only one. `flag`: what names another. Throws CommandError. */
export function containerOf(
  { metadata, spec }: PodObject,
  container: string | undefined,
  flag = `--through ${visible(metadata.name)}/CONTAINER`,
): ContainerReference {
  const { namespace, name: pod } = metadata;
  const all = spec?.containers ?? [];
  const names = visible(all.map(({ name }) => name).join(', '));
  if (container !== undefined) {
    if (all.some(({ name }) => name === container)) return { namespace, pod, container };
    throw new CommandError('usage', `pod ${visible(pod)} has no container ${container}: it has ${names}`);
  }
  const mounting = all.find(({ volumeMounts = [] }) => volumeMounts.some(({ name }) => name === VOLUME));
  const found = mounting ?? (all.length === 1 ? all[0] : undefined);
  if (found !== undefined) return { namespace, pod, container: found.name };
  throw new CommandError('usage', `which container of pod ${visible(pod)}? Pass ${flag}, one of ${names}`);
}

/** As the flag says, else the pod's annotation, else its mount; undefined: as the agent is configured. */
function basePathOf({ basePath }: VolumeFlags, { metadata, spec }: PodObject): string | undefined {
  const mounts = (spec?.containers ?? []).flatMap(({ volumeMounts = [] }) => volumeMounts);
  const mounted = mounts.find(({ name }) => name === VOLUME)?.mountPath;
  return basePath ?? (metadata.annotations?.[ANNOTATIONS.storageBasePath]?.trim() || mounted);
}

async function podWithVolume(cluster: Cluster, node: string | undefined): Promise<PodObject> {
  const pods = await listPods(cluster, cluster.namespace);
  const found = pods.find(
    ({ metadata, spec, status }) =>
      status?.phase === 'Running' &&
      metadata.deletionTimestamp === undefined &&
      (node === undefined || spec?.nodeName === node) &&
      spec?.volumes?.some(({ name }) => name === VOLUME),
  );
  if (found !== undefined) return found;
  const where = node === undefined ? '' : ` on node ${node}`;
  throw new CommandError(
    'refused',
    `the agents reach volumes only through running containers (podMount), and no running pod of namespace ${cluster.namespace}${where} has a volume ${VOLUME}. ${THROUGH_HINT}`,
  );
}
