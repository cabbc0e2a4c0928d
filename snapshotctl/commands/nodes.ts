import { Command } from 'commander';
import type { NodeMessage } from '../../contract/agent-api/messages.ts';
import { CommandError } from '../failure.ts';
import type { AgentPod } from '../reach/agents.ts';
import { asCommandError } from '../reach/failure.ts';
import { type AgentFlags, withAgentFlags } from '../reach/flags.ts';
import { type Reach, withReach } from '../reach/open.ts';
import { type OutputFlags, withOutputFlag, writeResult } from '../show/output.ts';
import { enumText, plain } from '../show/plain.ts';
import { tableText } from '../show/table.ts';
import { counted, visible } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';

/** Each has a tunnel of its own through the API server. */
const AT_ONCE = 8;

/** `snapshotctl nodes`: what the agents say of their nodes. */
export function nodesCommand(terminal: Terminal): Command {
  const command = new Command('nodes').description(
    'List the agents with their versions, and what their nodes can do; why not, where they cannot.',
  );
  return withOutputFlag(withAgentFlags(command)).action((flags: AgentFlags & OutputFlags) =>
    withReach(flags, terminal, async (reach) => {
      const answers = await askAll(await wanted(reach, flags), terminal.signal);
      writeResult(terminal, flags, { value: { nodes: answers.map(answerValue) }, text: () => nodesText(answers) });
      const silent = answers.filter(({ problem }) => problem !== undefined).length;
      if (silent > 0) throw new CommandError('unreachable', `${counted(silent, 'agent')} did not answer`);
    }),
  );
}

type Agents = Awaited<ReturnType<Reach['agents']>>;

async function wanted(reach: Reach, { node }: AgentFlags): Promise<Agents> {
  const all = await reach.agents();
  const found = node === undefined ? all : all.filter((agent) => agent.node === node);
  if (found.length === 0) throw new CommandError('unreachable', `node ${node} has no agent`);
  return found;
}

interface Answer {
  readonly node: string;
  readonly pod: AgentPod | undefined;
  readonly info: NodeMessage | undefined;
  readonly problem: string | undefined;
}

async function askAll(agents: Agents, signal: AbortSignal): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (let from = 0; from < agents.length; from += AT_ONCE) {
    const some = agents.slice(from, from + AT_ONCE);
    answers.push(...(await Promise.all(some.map((agent) => ask(agent, signal)))));
  }
  return answers;
}

async function ask({ node, pod, open }: Agents[number], signal: AbortSignal): Promise<Answer> {
  const agent = await open();
  try {
    const info = await agent.client.getNodeInfo({ signal });
    return { node: info.node, pod, info, problem: undefined };
  } catch (error) {
    if (signal.aborted) throw error;
    const known = asCommandError((await agent.problem()) ?? error);
    return { node, pod, info: undefined, problem: known instanceof Error ? known.message : String(known) };
  } finally {
    await agent.close();
  }
}

function answerValue({ node, pod, info, problem }: Answer): object {
  return {
    node,
    ...(pod && { agentPod: { namespace: pod.namespace, name: pod.name, ready: pod.isReady } }),
    ...(info && plain(info, { errorOf: () => undefined as never })),
    ...(problem !== undefined && { problem }),
  };
}

const COLUMNS = ['NODE', 'AGENT', 'READY', 'VERSION', 'CRIU', 'KERNEL', 'RUNTIME', 'STORAGE', 'CAN'].map((title) => ({
  title,
}));

function nodesText(answers: readonly Answer[]): string {
  const notes = answers.flatMap(({ node, info, problem }) => [
    ...(problem === undefined ? [] : [`${visible(node)}: ${problem}\n`]),
    ...(info?.capabilities ?? [])
      .filter(({ available }) => !available)
      .map(({ name, detail }) => `${visible(node)} has no ${visible(name)}: ${visible(detail)}\n`),
  ]);
  const table = tableText(
    COLUMNS,
    answers.map((answer) => rowOf(answer).map(visible)),
  );
  return notes.length === 0 ? table : `${table}\n${notes.join('')}`;
}

function rowOf({ node, pod, info }: Answer): string[] {
  const agent = pod === undefined ? '-' : `${pod.namespace}/${pod.name}`;
  const ready = pod === undefined ? '-' : pod.isReady ? 'yes' : 'no';
  if (info === undefined) return [node, agent, ready, '-', '-', '-', '-', '-', '-'];
  const can = info.capabilities.filter(({ available }) => available).map(({ name }) => name);
  const storage = `${enumText(info.access_mode)} ${info.base_path}`;
  return [node, agent, ready, info.agent_version, info.criu, info.kernel, info.runtime, storage, can.join(', ') || '-'];
}
