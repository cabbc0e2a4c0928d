import { once } from 'node:events';
import { connect } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { Command, Option } from 'commander';
import { CommandError } from '../failure.ts';
import { AGENT_SOCKET } from '../reach/flags.ts';
import type { Terminal } from '../terminal.ts';

/**
 * `snapshotctl relay`: carries standard input and output to the agent's socket and back. It is the far end of the tunnel that snapshotctl opens
 * with an exec in the agent's container (reach/tunnel.ts), and not for people.
 */
export function relayCommand(terminal: Terminal): Command {
  return new Command('relay')
    .description("Carry standard input and output to the agent's socket: the far end of other commands.")
    .addOption(new Option('--socket <path>', "the agent's socket").default(AGENT_SOCKET))
    .action(({ socket }: { readonly socket: string }) => relay(socket, terminal));
}

async function relay(path: string, { input, output, signal }: Terminal): Promise<void> {
  const socket = connect({ path, allowHalfOpen: true });
  try {
    await once(socket, 'connect', { signal });
  } catch (cause) {
    const message = `cannot connect to the agent's socket ${path}: ${(cause as Error).message}`;
    throw new CommandError('unreachable', message, { cause });
  }
  const fromAgent = pipeline(socket, output, { signal });
  const toAgent = pipeline(input, socket, { signal });
  // Either side may end first. Once the agent has said all it has to, nobody listens to what else comes in.
  toAgent.catch(() => socket.destroy());
  try {
    await fromAgent;
  } catch (cause) {
    if (signal.aborted || (cause as NodeJS.ErrnoException).code === 'EPIPE') return;
    throw new CommandError('failed', `the connection to ${path} broke: ${(cause as Error).message}`, { cause });
  } finally {
    socket.destroy();
    input.destroy();
  }
}
