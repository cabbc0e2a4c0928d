import { chmod, lstat, mkdir, readdir, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { SnapshotError } from '../errors.ts';

/** What the kernel takes as the path of a socket (unix(7): sun_path, with its final zero). */
const MAX_PATH_BYTES = 107;
const ANSWER_MS = 2_000;

/**
 * Listens on a unix socket that only this user can reach: mode 0600, in a directory of its own of mode 0700, which is made where it is
 * missing. A socket that was left behind is removed; one that answers, a directory that holds other things, and anything that is no
 * socket are CONFIG_INVALID and stay as they are.
 */
export async function listenUnix(path: string, connected: (socket: Socket) => void): Promise<Server> {
  if (Buffer.byteLength(path) > MAX_PATH_BYTES)
    throw new SnapshotError('CONFIG_INVALID', `${path} is longer than the ${MAX_PATH_BYTES} bytes of a socket's path`);
  await preparePrivateDirectory(dirname(path), basename(path));
  await removeStale(path);
  const server = createServer({ noDelay: true }, connected);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new SnapshotError('CONFIG_INVALID', `cannot listen at ${path}: ${cause.message}`, { cause })),
    );
    server.listen(path, resolve);
  });
  // Made with the mode that the umask gives; until now the directory has kept others out.
  await chmod(path, 0o600);
  return server;
}

/** The mode is made narrower only where nothing but the socket is inside: `/run` must not be closed by a wrong path. */
async function preparePrivateDirectory(directory: string, socketName: string): Promise<void> {
  try {
    await mkdir(directory, { mode: 0o700, recursive: true });
    const found = await lstat(directory);
    if (!found.isDirectory()) throw new Error('it is no directory');
    if (found.uid !== process.geteuid?.()) throw new Error(`it belongs to the user ${found.uid}`);
    if ((found.mode & 0o077) === 0) return;
    const others = (await readdir(directory)).filter((name) => name !== socketName);
    if (others.length > 0)
      throw new Error(`others may enter it, and it holds ${others[0]}: use a directory of its own`);
    await chmod(directory, 0o700);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new SnapshotError('CONFIG_INVALID', `the directory ${directory} cannot hold the socket: ${message}`, {
      cause,
    });
  }
}

async function removeStale(path: string): Promise<void> {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  if (!found.isSocket()) throw new SnapshotError('CONFIG_INVALID', `${path} is there and is no socket`);
  if (await isAnswering(path))
    throw new SnapshotError('CONFIG_INVALID', `another process answers at ${path}: is a second agent running?`);
  const again = await lstat(path).catch(() => undefined);
  if (again !== undefined && again.ino !== found.ino)
    throw new SnapshotError('CONFIG_INVALID', `another process is just making ${path}`);
  await rm(path, { force: true });
}

function isAnswering(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path, timeout: ANSWER_MS });
    const end = (answers: boolean) => {
      socket.destroy();
      resolve(answers);
    };
    socket.once('connect', () => end(true));
    // One that neither takes nor refuses the connection has somebody behind it.
    socket.once('timeout', () => end(true));
    socket.once('error', (error: NodeJS.ErrnoException) =>
      end(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'),
    );
  });
}
