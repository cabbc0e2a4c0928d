import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import type { AgentClient } from '../../contract/agent-api/client.ts';
import { AgentError } from '../../contract/agent-api/failure.ts';
import type { OperationMessage } from '../../contract/agent-api/messages.ts';
import { idProblem } from '../../contract/ids.ts';
import { CommandError, type EXIT } from '../failure.ts';
import { asCommandError } from '../reach/failure.ts';
import { type AgentFlags, withAgentFlags } from '../reach/flags.ts';
import { type Reach, type ReachedAgent, withReach } from '../reach/open.ts';
import { endText, newTeller, progressText } from '../show/operation.ts';
import { type OutputFlags, withOutputFlag, writeNext } from '../show/output.ts';
import { plain } from '../show/plain.ts';
import { newProgress } from '../show/progress.ts';
import { counted, visible } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';

/** How often new operations are looked for. */
const LOOK_MS = 1_000;
const UNFINISHED = ['QUEUED', 'WAITING', 'RUNNING'].map((state) => `OPERATION_STATE_${state}`);

/** `snapshotctl watch`: an operation, or all that are under way on a node, until they are done. */
export function watchCommand(terminal: Terminal): Command {
  const command = new Command('watch')
    .argument('[operation]', 'its id; left out: all that are under way on the node')
    .description('Follow an operation, or all of a node, until it is done. The exit status says how it ended.');
  return withOutputFlag(withAgentFlags(command)).action(
    (operation: string | undefined, flags: AgentFlags & OutputFlags) => {
      const problem = operation === undefined ? undefined : idProblem(operation);
      if (problem !== undefined)
        throw new CommandError('usage', `the operation ${visible(operation ?? '')} ${problem}`);
      return withReach(flags, terminal, async (reach) => {
        if (operation === undefined) await watchNode(await agentOfNode(reach, flags), flags, terminal);
        else await watchOne(operation, await agentThatHas(operation, reach, flags, terminal), flags, terminal);
      });
    },
  );
}

/** All of a node is asked for: where there are several, it must be said which. */
async function agentOfNode(reach: Reach, { node }: AgentFlags): Promise<ReachedAgent> {
  if (node !== undefined || reach.cluster === undefined) return await reach.agent(node);
  const nodes = [...new Set((await reach.agents()).map((agent) => agent.node))];
  if (nodes.length > 1)
    throw new CommandError(
      'usage',
      `which node? Pass --node, one of ${visible(nodes.join(', '))}, or the id of an operation`,
    );
  return await reach.agent(nodes[0]);
}

/** Operations are known to the agent of their node alone. */
async function agentThatHas(
  operation: string,
  reach: Reach,
  { node }: AgentFlags,
  { signal, err }: Terminal,
): Promise<ReachedAgent> {
  if (node !== undefined || reach.cluster === undefined) return await reach.agent(node);
  for (const { node: name, pod, open } of await reach.agents()) {
    if (pod?.isReady === false) continue;
    const agent = await open();
    try {
      await agent.client.getOperation(operation, { signal });
      return agent;
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      if (error.reason !== 'OPERATION_NOT_FOUND') err.write(`node ${visible(name)}: ${visible(error.message)}\n`);
      await agent.close();
    }
  }
  throw new CommandError('failed', `no agent that is ready knows an operation ${operation}; it may be long over`);
}

async function watchOne(id: string, agent: ReachedAgent, flags: OutputFlags, terminal: Terminal): Promise<void> {
  const last = await follow(id, agent.client, { flags, terminal, several: false });
  const failure = failureOf(last, agent.client);
  if (failure !== undefined) throw failure;
}

/** All that are under way, and those that begin meanwhile, until none is left. */
async function watchNode(agent: ReachedAgent, flags: OutputFlags, terminal: Terminal): Promise<void> {
  const { signal } = terminal;
  const followed = new Map<string, Promise<OperationMessage>>();
  let active = 0;
  for (;;) {
    for await (const { name } of agent.client.listOperations({ states: UNFINISHED }, { signal })) {
      if (followed.has(name)) continue;
      active += 1;
      const end = follow(name, agent.client, { flags, terminal, several: true }).finally(() => {
        active -= 1;
      });
      // A failure is thrown below, when all are gathered.
      end.catch(() => undefined);
      followed.set(name, end);
    }
    if (active === 0) break;
    await Promise.race([sleep(LOOK_MS, undefined, { signal }), Promise.allSettled(followed.values())]);
  }
  if (followed.size === 0) terminal.err.write(`nothing is under way on ${visible(agent.name)}\n`);
  const ended = await Promise.all(followed.values());
  const failures = ended.flatMap((one) => failureOf(one, agent.client) ?? []);
  const [first] = failures;
  if (first === undefined) return;
  throw new CommandError(first.exit, `${counted(failures.length, 'operation')} of ${ended.length} did not succeed`);
}

/** Tells what an operation does until it is done, and answers with it as it is then. */
async function follow(
  id: string,
  client: AgentClient,
  { flags, terminal, several }: { readonly flags: OutputFlags; readonly terminal: Terminal; readonly several: boolean },
): Promise<OperationMessage> {
  const progress = newProgress(terminal);
  const tell = newTeller(several ? id : '');
  const onLost = (error: AgentError, waitMs: number) => {
    progress.clear();
    terminal.err.write(`the connection was lost (${visible(error.message)}); trying again in ${waitMs} ms\n`);
  };
  let last: OperationMessage | undefined;
  try {
    for await (const operation of client.watchOperation(id, { signal: terminal.signal, onLost })) {
      last = operation;
      const lines = tell(operation);
      if (flags.output !== 'text' || lines.length > 0) progress.clear();
      if (flags.output !== 'text' || lines.length > 0)
        writeNext(terminal, flags, { value: plain(operation, client), text: () => lines.join('') });
      if (!operation.done)
        progress.show(`${several ? `${visible(id)}  ` : ''}${progressText(operation, terminal.err.columns)}`);
    }
  } finally {
    progress.clear();
  }
  if (last === undefined) throw new Error(`the watch of ${id} showed nothing`);
  if (flags.output === 'text') terminal.out.write(endText(last, several ? id : ''));
  return last;
}

const EXIT_OF_STATE: Readonly<Record<string, keyof typeof EXIT>> = { OPERATION_STATE_REFUSED: 'refused' };

function failureOf({ metadata, error }: OperationMessage, client: AgentClient): CommandError | undefined {
  if (metadata.state === 'OPERATION_STATE_SUCCEEDED') return undefined;
  const exit = EXIT_OF_STATE[metadata.state] ?? 'failed';
  if (!error) return new CommandError(exit, 'the operation did not succeed');
  const { message } = asCommandError(client.errorOf(error)) as CommandError;
  return new CommandError(exit, message);
}
