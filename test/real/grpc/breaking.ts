import { connect, createServer, type Socket } from 'node:net';

/** A socket that leads to another one, until the connections through it break. */
export interface Breaking {
  readonly path: string;
  /** Ends every connection there and then; new ones may be made. */
  cut(): void;
  close(): void;
}

export async function breakingSocket(path: string, to: string): Promise<Breaking> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const agent = connect(to);
    for (const [one, other] of [
      [client, agent],
      [agent, client],
    ] as const) {
      sockets.add(one);
      one.on('error', () => undefined);
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    path,
    cut,
    close: () => {
      cut();
      server.close();
    },
  };
}
