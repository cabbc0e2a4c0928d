import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { vi } from 'vitest';

/** A real socket with a kubeconfig that leads to it; its user has a token in a file of its own. */
export async function serve(answer: RequestListener) {
  const server = createServer(answer);
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  const listen = (port: number) => new Promise<void>((resolve) => server.listen(port, '127.0.0.1', () => resolve()));
  await listen(0);
  const { port } = server.address() as AddressInfo;
  const dir = await mkdtemp(join(tmpdir(), 'kube-'));
  const kubeconfigPath = join(dir, 'kubeconfig');
  const tokenPath = join(dir, 'token');
  await writeFile(tokenPath, 'first\n');
  await writeFile(kubeconfigPath, JSON.stringify(kubeconfig(`http://127.0.0.1:${port}`)));
  const away = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.resetAndDestroy();
    });
  return {
    kubeconfigPath,
    tokenPath,
    sockets,
    /** Nobody listens any more; open connections are reset. */
    away,
    back: () => listen(port),
    close: async () => {
      if (server.listening) await away();
      await rm(dir, { recursive: true });
    },
  };
}

function kubeconfig(server: string) {
  return {
    clusters: [{ name: 'test', cluster: { server } }],
    users: [{ name: 'test', user: { tokenFile: 'token' } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    'current-context': 'test',
  };
}

/** Checks again and again, until it holds. */
export const eventually = (check: () => void | Promise<void>) => vi.waitFor(check, { timeout: 15_000, interval: 5 });

export function json(response: ServerResponse, code: number, body: object, headers: Record<string, string> = {}): void {
  response.writeHead(code, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
}

/** A refusal as the server words it. */
export function status(
  response: ServerResponse,
  refusal: { readonly code: number; readonly reason?: string; readonly message?: string },
  headers: Record<string, string> = {},
): void {
  json(response, refusal.code, { kind: 'Status', status: 'Failure', ...refusal }, headers);
}
