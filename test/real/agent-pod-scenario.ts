import type { AgentPod } from './environment/agent-daemonset.ts';
import type { Container, JsonLine } from './environment/container.ts';
import { eventually } from './environment/host.ts';
import { sentinel } from './scenario.ts';

/** Commands of placeholders that a checkpoint can be restored into. */
export const PLACEHOLDERS = {
  'snapshot-standby': ['/usr/local/bin/snapshot-standby'],
  'sleep infinity': ['sleep', 'infinity'],
} as const;

/** The sentinel that ends an operation on this container. Its absence is explained by the agent's log. */
export async function released(agent: AgentPod, container: Container, name: string): Promise<string> {
  return eventually(
    `${name} of container ${container.name}`,
    () => {
      const failure = agent.logs().find((line) => isEnd(line, container, 'operation failed'));
      if (failure !== undefined) throw new Error(`${JSON.stringify(failure)}\n${agent.explain()}`);
      try {
        return sentinel(container, name) || undefined;
      } catch {
        return undefined; // Not there yet.
      }
    },
    { timeoutMs: 60_000, explain: () => agent.explain() },
  );
}

/** Says whether the line is the last one about an operation on this container. */
export function isEnd(line: JsonLine, container: Container, msg: string): boolean {
  return line['containerId'] === container.id && line['msg'] === msg;
}
