import { KubeError } from '../../kube/error.ts';
import { kubePath } from '../../kube/paths.ts';
import type { Cluster } from '../cluster.ts';
import { CommandError } from '../failure.ts';
import { visible } from '../show/text.ts';

/** The label of all agents, whatever the release is called. */
const AGENT_SELECTOR = 'app.kubernetes.io/component=snapshot-agent';
const PAGE = 500;

export interface AgentPod {
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly isReady: boolean;
}

export interface PodObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly deletionTimestamp?: string;
  };
  readonly spec?: {
    readonly nodeName?: string;
    readonly volumes?: readonly { readonly name: string }[];
    readonly containers?: readonly {
      readonly name: string;
      readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[];
    }[];
  };
  readonly status?: {
    readonly phase?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

/**
 * The agents of a cluster, by the name of their nodes: those of `agentNamespace`, else of the cluster's namespace, else of all. Throws
 * CommandError where there is none, or where they may not be listed.
 */
export async function findAgents(cluster: Cluster, agentNamespace: string | undefined): Promise<AgentPod[]> {
  const near = await listAgents(cluster, agentNamespace ?? cluster.namespace);
  const found = near.length > 0 || agentNamespace !== undefined ? near : await listAgents(cluster, undefined);
  if (found.length > 0) return found.sort((a, b) => (a.node < b.node ? -1 : 1));
  const where = agentNamespace === undefined ? 'in any namespace' : `in namespace ${agentNamespace}`;
  throw new CommandError(
    'unreachable',
    `there is no agent ${where} of ${cluster.kube.server}: no pod has the label ${AGENT_SELECTOR}. Is the chart installed? Is this the cluster (--kube-context)?`,
  );
}

/**
 * A ready agent: that of `node`, or any. Throws CommandError where there is none, or where agents of several namespaces could be meant: each
 * may have another volume, and any pod can have the label of an agent.
 */
export function pickAgent(agents: readonly AgentPod[], node: string | undefined): AgentPod {
  const ofNode = node === undefined ? agents : agents.filter((agent) => agent.node === node);
  if (ofNode.length === 0)
    throw new CommandError('unreachable', `node ${node} has no agent; those that have one: ${nodesOf(agents)}`);
  const namespaces = [...new Set(ofNode.map(({ namespace }) => namespace))].sort();
  if (namespaces.length > 1)
    throw new CommandError(
      'usage',
      `there are agents in several namespaces: ${visible(namespaces.join(', '))}. Say whose is meant with --agent-namespace`,
    );
  const ready = ofNode.find(({ isReady }) => isReady);
  if (ready !== undefined) return ready;
  const names = ofNode.map(({ namespace, name }) => `${namespace}/${name}`).join(', ');
  throw new CommandError('unreachable', `no agent is ready: look at ${visible(names)} with kubectl describe and logs`);
}

function nodesOf(agents: readonly AgentPod[]): string {
  return visible([...new Set(agents.map(({ node }) => node))].join(', '));
}

async function listAgents(cluster: Cluster, namespace: string | undefined): Promise<AgentPod[]> {
  const pods = await listPods(cluster, namespace, AGENT_SELECTOR);
  return pods
    .filter(({ spec, metadata }) => spec?.nodeName !== undefined && metadata.deletionTimestamp === undefined)
    .map((pod) => ({
      namespace: pod.metadata.namespace,
      name: pod.metadata.name,
      node: pod.spec?.nodeName ?? '',
      isReady: pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false,
    }));
}

/** Pods of a namespace, or of all. Throws CommandError that names the missing right where they may not be listed. */
export async function listPods(
  { kube }: Cluster,
  namespace: string | undefined,
  labelSelector?: string,
): Promise<PodObject[]> {
  const path = namespace === undefined ? kubePath('api', 'v1', 'pods') : podsPath(namespace);
  const pods: PodObject[] = [];
  let next: string | undefined;
  do {
    const query = { labelSelector, limit: PAGE, continue: next };
    const page = await kube.request<PodPage>({ method: 'GET', path, query }).catch((error: unknown) => {
      throw forbidden(error, `list pods ${namespace === undefined ? 'in all namespaces' : `in ${namespace}`}`);
    });
    pods.push(...page.items);
    next = page.metadata.continue || undefined;
  } while (next !== undefined);
  return pods;
}

export async function getPod({ kube }: Cluster, namespace: string, name: string): Promise<PodObject> {
  const path = `${podsPath(namespace)}${kubePath(name)}`;
  return kube.request<PodObject>({ method: 'GET', path }).catch((error: unknown) => {
    throw forbidden(error, `get pods in ${namespace}`);
  });
}

function forbidden(error: unknown, what: string): unknown {
  if (!(error instanceof KubeError) || error.status !== 403) return error;
  const advice = what.endsWith('all namespaces') ? ' Pass --agent-namespace if you know where the agents run.' : '';
  const message = `you may not ${what}: an RBAC rule with that verb is missing.${advice} (${visible(error.message)})`;
  return new CommandError('unreachable', message, { cause: error });
}

interface PodPage {
  readonly metadata: { readonly continue?: string };
  readonly items: readonly PodObject[];
}

const podsPath = (namespace: string) => kubePath('api', 'v1', 'namespaces', namespace, 'pods');
