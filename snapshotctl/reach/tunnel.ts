import { rmSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { MAX_SOCKET_PATH_BYTES } from '../../contract/agent-api/channel.ts';
import type { ExecEnd, ExecSession } from '../../kube/exec-stream.ts';
import { CommandError } from '../failure.ts';

/** How long an end that is on its way is waited for, to say why a connection broke. */
const END_MS = 2_000;

/** A socket of this machine whose connections come out at an agent. */
export interface Tunnel {
  readonly socketPath: string;
  /** Why the last connection did not come about or broke; undefined where it did not. */
  problem(): Promise<Error | undefined>;
  /** Closes all connections and removes the socket. */
  close(): Promise<void>;
}

/**
 * Opens a tunnel. Each connection to its socket is carried by one session that `connect` opens, both ways, with back-pressure. Only this user
 * can connect: the directory is theirs alone. `explain` says what a session's end means, or undefined where it is a good one.
 */
export async function openTunnel(
  connect: () => Promise<ExecSession>,
  explain: (end: ExecEnd) => Error | undefined,
): Promise<Tunnel> {
  const directory = await mkdtemp(join(tmpdir(), 'snapshotctl-'));
  // mkdtemp's own mode, whatever the umask.
  await chmod(directory, 0o700);
  // Whoever reads may have seen enough (`| head`): that ends the program where it is.
  const removeNow = () => rmSync(directory, { recursive: true, force: true });
  process.once('exit', removeNow);
  const socketPath = join(directory, 'agent.sock');
  let last: Promise<Error | undefined> = Promise.resolve(undefined);
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    last = carry(socket, connect, explain);
  });
  try {
    await listen(server, socketPath);
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
  return {
    socketPath,
    problem: () => Promise.race([last, sleep(END_MS, undefined, { ref: false })]),
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      await rm(directory, { recursive: true, force: true });
      process.off('exit', removeNow);
    },
  };
}

/** Carries one connection to its end. Answers why it ended, where that was not as it should. */
async function carry(
  socket: Socket,
  connect: () => Promise<ExecSession>,
  explain: (end: ExecEnd) => Error | undefined,
): Promise<Error | undefined> {
  let session: ExecSession;
  try {
    session = await connect();
  } catch (error) {
    socket.destroy();
    return error as Error;
  }
  if (socket.destroyed) session.stream.destroy();
  // Our side may end first, and still read. Once the agent's has ended, nobody reads what else is sent.
  const there = pipeline(socket, session.stream);
  const back = pipeline(session.stream, socket);
  there.catch(() => session.stream.destroy());
  await back.catch(() => undefined);
  session.stream.destroy();
  socket.destroy();
  return explain(await session.ended);
}

async function listen(server: ReturnType<typeof createServer>, path: string): Promise<void> {
  // Node.js would cut it off without a word.
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES)
    throw new CommandError('usage', `${path} is too long for a socket: set TMPDIR to a shorter directory`);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
}
