import { z } from 'zod';
import { AGENT_SELECTOR } from '../../contract/agent-storage.ts';
import { type CacheOptions, ObjectCache } from '../control/cache.ts';

/** What is used of an agent's pod. */
export interface AgentPod {
  readonly node: string;
  /** Undefined: it has none yet, or none any more. */
  readonly ip: string | undefined;
  readonly isReady: boolean;
}

export type AgentPods = Pick<ObjectCache<AgentPod>, 'all' | 'indexed' | 'subscribe' | 'synced'>;

const pod = z.looseObject({
  spec: z.looseObject({ nodeName: z.string().default('') }).optional(),
  status: z
    .looseObject({
      phase: z.string().optional(),
      podIP: z.string().optional(),
      conditions: z.array(z.looseObject({ type: z.string(), status: z.string() })).optional(),
    })
    .optional(),
});

/** The pods of agents, of one namespace or all. It is empty until it runs. */
export function newAgentPodCache(
  options: Pick<CacheOptions<AgentPod>, 'client' | 'log' | 'metrics' | 'path' | 'timings'>,
): ObjectCache<AgentPod> {
  return new ObjectCache<AgentPod>({
    ...options,
    labelSelector: AGENT_SELECTOR,
    resource: 'agent-pods',
    read: readAgentPod,
    indexes: { node: ({ value }) => [value.node], namespace: ({ meta }) => [meta.namespace] },
  });
}

/** An agent on the host's network has the node's address, which its pod says as well. */
function readAgentPod(object: unknown): AgentPod {
  const { data } = pod.safeParse(object);
  const { phase, podIP, conditions = [] } = data?.status ?? {};
  const isReady = conditions.some(({ type, status }) => type === 'Ready' && status === 'True');
  return {
    node: data?.spec?.nodeName ?? '',
    ip: phase === 'Running' && podIP !== '' ? podIP : undefined,
    isReady: isReady && phase === 'Running',
  };
}
