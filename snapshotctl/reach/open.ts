import { readFileSync } from 'node:fs';
import type { AgentAddress } from '../../contract/agent-api/channel.ts';
import { type AgentClient, openAgentClient } from '../../contract/agent-api/client.ts';
import { AgentError, isLost } from '../../contract/agent-api/failure.ts';
import { type Cluster, openCluster } from '../cluster.ts';
import { CommandError } from '../failure.ts';
import type { Terminal } from '../terminal.ts';
import { type AgentPod, findAgents, pickAgent } from './agents.ts';
import { asCommandError } from './failure.ts';
import type { AgentFlags } from './flags.ts';
import { tunnelToPod } from './through-pod.ts';

/** An agent that can be asked, until it is closed. */
export interface ReachedAgent {
  readonly client: AgentClient;
  /** For messages. */
  readonly name: string;
  /** Why the way to it broke, where more is known than that no answer comes. */
  problem(): Promise<Error | undefined>;
  close(): Promise<void>;
}

/** The ways to agents that the flags leave open. */
export interface Reach {
  /** Undefined where an agent is named by socket or address: no cluster is needed then. */
  readonly cluster: Cluster | undefined;
  /** The agent of a node, or any that is ready. Throws CommandError. */
  agent(node?: string): Promise<ReachedAgent>;
  /** All agents; of an agent named by socket or address, that one. */
  agents(): Promise<readonly { readonly node: string; readonly pod?: AgentPod; open(): Promise<ReachedAgent> }[]>;
}

/** Does a command's work with what its flags reach. Whatever fails is thrown as CommandError; everything is closed at the end. */
export async function withReach<T>(
  flags: AgentFlags,
  terminal: Terminal,
  work: (reach: Reach) => Promise<T>,
): Promise<T> {
  const opened: ReachedAgent[] = [];
  const keep = (agent: ReachedAgent) => {
    opened.push(agent);
    return agent;
  };
  let reach: Reach | undefined;
  try {
    const direct = directAddress(flags);
    reach = direct === undefined ? await byCluster(flags, terminal, keep) : byAddress(direct, keep);
    return await work(reach);
  } catch (error) {
    throw await explained(error, opened);
  } finally {
    for (const agent of opened) await agent.close();
    reach?.cluster?.kube.close();
  }
}

/** What is known of why no answer comes says more than that none comes. */
async function explained(error: unknown, opened: readonly ReachedAgent[]): Promise<unknown> {
  if (error instanceof AgentError && isLost(error) && error.reason === '') {
    const problems = await Promise.all(opened.map((agent) => agent.problem()));
    const problem = problems.find((one) => one !== undefined);
    if (problem !== undefined) return asCommandError(problem);
  }
  return asCommandError(error);
}

async function byCluster(
  flags: AgentFlags,
  terminal: Terminal,
  keep: (agent: ReachedAgent) => ReachedAgent,
): Promise<Reach> {
  const cluster = await openCluster(flags, terminal);
  const find = () => findAgents(cluster, flags.agentNamespace);
  const open = async (pod: AgentPod): Promise<ReachedAgent> => {
    const tunnel = await tunnelToPod(cluster, pod, terminal.signal);
    const client = openAgentClient({ socketPath: tunnel.socketPath });
    const close = async () => {
      client.close();
      await tunnel.close();
    };
    return keep({ client, name: `the agent of node ${pod.node}`, problem: tunnel.problem, close });
  };
  return {
    cluster,
    agent: async (node) => await open(pickAgent(await find(), node)),
    agents: async () => (await find()).map((pod) => ({ node: pod.node, pod, open: () => open(pod) })),
  };
}

function byAddress({ address, name }: DirectAddress, keep: (agent: ReachedAgent) => ReachedAgent): Reach {
  const open = () => {
    const client = openAgentClient(address);
    const close = () => Promise.resolve(client.close());
    return Promise.resolve(keep({ client, name, problem: () => Promise.resolve(undefined), close }));
  };
  return {
    cluster: undefined,
    agent: open,
    agents: () => Promise.resolve([{ node: '', open }]),
  };
}

interface DirectAddress {
  readonly address: AgentAddress;
  readonly name: string;
}

/** The agent that --socket or --address names. Throws CommandError where flags are missing or files cannot be read. */
function directAddress(flags: AgentFlags): DirectAddress | undefined {
  const { socket, address, ca, cert, key, serverName } = flags;
  if (socket !== undefined) return { address: { socketPath: socket }, name: `the agent at ${socket}` };
  const files = { '--ca': ca, '--cert': cert, '--key': key };
  const missing = Object.entries(files).filter(([, path]) => path === undefined);
  if (address === undefined) {
    if (missing.length < 3) throw new CommandError('usage', '--ca, --cert and --key are for --address HOST:PORT');
    return undefined;
  }
  if (missing.length > 0)
    throw new CommandError(
      'usage',
      `--address needs ${missing.map(([flag]) => flag).join(', ')}: agents take mutual TLS only`,
    );
  return {
    address: {
      address,
      ca: readPem('--ca', ca),
      certificate: readPem('--cert', cert),
      key: readPem('--key', key),
      serverName,
    },
    name: `the agent at ${address}`,
  };
}

function readPem(flag: string, path = ''): Buffer {
  try {
    const content = readFileSync(path);
    if (content.includes('-----BEGIN ')) return content;
  } catch (cause) {
    throw new CommandError('usage', `${flag} ${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
  throw new CommandError('usage', `${flag} ${path} is not in PEM form`);
}
