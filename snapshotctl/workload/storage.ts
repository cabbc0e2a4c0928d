import { type Command, Option } from 'commander';
import { parse } from 'yaml';
import { AGENT_SELECTOR, agentClaim, agentConfigMap, namespaceStorage } from '../../contract/agent-storage.ts';
import { ShapingError } from '../../contract/shaping-error.ts';
import { basePathProblem, type StorageSource } from '../../contract/storage-volume.ts';
import type { KubeClient } from '../../kube/client.ts';
import { KubeError } from '../../kube/error.ts';
import type { DaemonSet } from '../../kube/objects.ts';
import { kubePath } from '../../kube/paths.ts';
import { CommandError } from '../failure.ts';
import { asCommandError, ask } from './asking.ts';

export interface StorageFlags {
  readonly storage?: string;
  readonly pvcName?: string;
  readonly basePath?: string;
}

/** Adds the flags that say where artifacts are, for agents that do not mount them. */
export function withStorageFlags(command: Command): Command {
  return command
    .addOption(new Option('--storage <type>', 'kind of storage that the pod brings (podMount)').choices(['pvc']))
    .addOption(new Option('--pvc-name <name>', "claim in the pod's namespace; default: the agent has it (agentMount)"))
    .addOption(
      new Option('--base-path <path>', "where the claim is mounted; default: as the agent's configuration says"),
    );
}

interface Place {
  readonly kube: KubeClient;
  readonly namespace: string;
}

/** Where the artifacts of a namespace's pods are: as the flags say, else as the agents say. Throws CommandError. */
export async function findStorage(place: Place, flags: StorageFlags): Promise<StorageSource> {
  const { storage, pvcName, basePath } = flags;
  if (pvcName === undefined && storage !== undefined)
    throw new CommandError('usage', '--storage pvc needs --pvc-name: which claim the pod mounts');
  if (pvcName === undefined && basePath !== undefined)
    throw new CommandError(
      'usage',
      '--base-path needs --pvc-name: where the agent mounts the volume, it says so itself',
    );
  return pvcName === undefined ? discovered(place) : ofClaim(place, pvcName, basePath);
}

async function ofClaim(place: Place, claim: string, given: string | undefined): Promise<StorageSource> {
  await requireClaim(place, claim);
  const basePath = (given ?? soleBasePath(await agentsElsewhere(place)))?.trim();
  if (basePath === undefined)
    throw new CommandError('usage', '--base-path is required: no agent says where pods are to mount the claim');
  const problem = basePathProblem(basePath);
  if (problem !== undefined) throw new CommandError('usage', `--base-path ${basePath} ${problem}`);
  return { accessMode: 'podMount', claim, basePath: basePath.replace(/\/+$/, '') };
}

/** Where agents say different paths, nobody knows whose is meant. */
function soleBasePath(agents: readonly AgentElsewhere[]): string | undefined {
  const paths = new Set(agents.flatMap(({ basePath }) => basePath ?? []));
  if (paths.size > 1)
    throw new CommandError(
      'usage',
      `agents say different paths (${agents.map(({ name }) => name).join(', ')}): pass --base-path`,
    );
  return [...paths][0];
}

/** A pod that names a claim that is not there waits for ever. Who may not read claims is believed. */
async function requireClaim({ kube, namespace }: Place, name: string): Promise<void> {
  const path = kubePath('api', 'v1', 'namespaces', namespace, 'persistentvolumeclaims', name);
  try {
    await kube.request({ method: 'GET', path });
  } catch (error) {
    if (error instanceof KubeError && error.status === 403) return;
    if (!(error instanceof KubeError && error.status === 404)) throw asCommandError(error);
    throw new CommandError('usage', `there is no persistent volume claim ${name} in namespace ${namespace}`);
  }
}

async function discovered(place: Place): Promise<StorageSource> {
  const { kube, namespace } = place;
  const here = await daemonSets(kube, kubePath('apis', 'apps', 'v1', 'namespaces', namespace, 'daemonsets'));
  try {
    return namespaceStorage(here, namespace);
  } catch (error) {
    if (!(error instanceof ShapingError)) throw error;
    return await ofAgentsElsewhere(place, error);
  }
}

/** What an agent says of itself, by its DaemonSet and its configuration. */
interface AgentElsewhere {
  readonly name: string;
  readonly mode: 'agentMount' | 'podMount';
  readonly basePath: string | undefined;
}

/** `reason`: why the namespace's own agents do not say. */
async function ofAgentsElsewhere(place: Place, reason: ShapingError): Promise<StorageSource> {
  const agents = await agentsElsewhere(place);
  const [first, second] = agents;
  if (first !== undefined && second !== undefined)
    throw new CommandError(
      'usage',
      `there are several agents elsewhere, and any namespace can have what looks like one (${agents.map(({ name }) => name).join(', ')}): pass --pvc-name and --base-path`,
    );
  if (first === undefined)
    throw new CommandError(
      'usage',
      `${reason.message}; for an agent that does not mount it, pass --pvc-name and --base-path`,
    );
  if (first.mode === 'agentMount' && first.basePath !== undefined)
    return { accessMode: 'agentMount', claim: undefined, basePath: first.basePath };
  const path = first.basePath === undefined ? '--base-path' : `--base-path ${first.basePath}`;
  throw new CommandError(
    'usage',
    `agent ${first.name} reaches artifacts through the pods (podMount): pass --storage pvc, --pvc-name with a claim of namespace ${place.namespace}, and ${path}`,
  );
}

/** The agents of all namespaces that work for this one. Without the right to look for them there are none. */
async function agentsElsewhere({ kube, namespace }: Place): Promise<AgentElsewhere[]> {
  const sets = await daemonSets(kube, '/apis/apps/v1/daemonsets').catch((error: unknown) => {
    if (error instanceof CommandError && error.cause instanceof KubeError && error.cause.status === 403) return [];
    throw error;
  });
  const agents = await Promise.all(sets.map((set) => describeAgent(kube, set)));
  return agents.filter((agent) => agent.worksFor === undefined || agent.worksFor === namespace);
}

async function describeAgent(
  kube: KubeClient,
  set: DaemonSet,
): Promise<AgentElsewhere & { worksFor?: string | undefined }> {
  const { namespace = '', name = '' } = set.metadata ?? {};
  const mounted = agentClaim(set);
  const { storage, kubernetes } = await configurationOf(kube, namespace, agentConfigMap(set));
  return {
    name: `${namespace}/${name}`,
    mode: mounted === undefined ? 'podMount' : 'agentMount',
    basePath: mounted?.basePath ?? textOf(storage?.basePath),
    worksFor: textOf(kubernetes?.namespace),
  };
}

/** As somebody wrote it: nothing of it was checked. */
interface Configuration {
  readonly storage?: { readonly basePath?: unknown } | null;
  readonly kubernetes?: { readonly namespace?: unknown } | null;
}

const textOf = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined);

/** Nothing where it cannot be read or understood: the person can say it instead. */
async function configurationOf(kube: KubeClient, namespace: string, name: string | undefined): Promise<Configuration> {
  if (name === undefined) return {};
  try {
    const path = kubePath('api', 'v1', 'namespaces', namespace, 'configmaps', name);
    const { data = {} } = await kube.request<{ data?: Record<string, string> }>({ method: 'GET', path });
    return (parse(data['config.yaml'] ?? '') as Configuration | null) ?? {};
  } catch {
    return {};
  }
}

async function daemonSets(kube: KubeClient, path: string): Promise<DaemonSet[]> {
  const query = { labelSelector: AGENT_SELECTOR };
  const { items } = await ask<{ readonly items?: DaemonSet[] | null }>(kube, { method: 'GET', path, query });
  return items ?? [];
}
