import { type Command, Option } from 'commander';
import { type ClusterFlags, withClusterFlags } from '../cluster.ts';

/** The flags that say which agent is asked, as commander hands them over. */
export interface AgentFlags extends ClusterFlags {
  readonly socket?: string;
  readonly address?: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly serverName: string;
  readonly agentNamespace?: string;
  readonly node?: string;
}

/** The flags that say which volume is meant, where the agents do not mount one themselves. */
export interface VolumeFlags extends AgentFlags {
  readonly through?: string;
  readonly basePath?: string;
}

/** Where the agent's image has the socket. */
export const AGENT_SOCKET = '/run/snapshot-agent-api/agent.sock';

/** Adds what names an agent: by Kubernetes, by a socket of this machine, or by an address. */
export function withAgentFlags(command: Command): Command {
  const byAddress = ['socket'];
  return withClusterFlags(command)
    .addOption(new Option('--node <name>', 'ask the agent of this node; default: any that is ready'))
    .addOption(new Option('--agent-namespace <name>', 'where the agents run; default: the namespace, else all'))
    .addOption(new Option('--socket <path>', "the agent's socket, on its node").conflicts(['address', 'node']))
    .addOption(new Option('--address <host:port>', 'its address, with mutual TLS').conflicts([...byAddress, 'node']))
    .addOption(new Option('--ca <file>', "who signed the agent's certificate (with --address)"))
    .addOption(new Option('--cert <file>', 'certificate to show (with --address)'))
    .addOption(new Option('--key <file>', 'its key (with --address)'))
    .addOption(
      new Option('--server-name <name>', "name in the agent's certificate (with --address)").default('snapshot-agent'),
    );
}

/** Adds what names a volume, too. */
export function withVolumeFlags(command: Command): Command {
  return withAgentFlags(command)
    .addOption(
      new Option('--through <pod[/container]>', 'reach the volume through this running container (podMount mode)'),
    )
    .addOption(new Option('--base-path <path>', 'where that container mounts the volume; default: as its pod says'));
}
