import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';

/** Certificate and key of the server, and the authority that clients should trust; PEM. */
export interface ServerTls {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

/** A port that the server can leave and come back to. */
export class Listener {
  readonly #server: ReturnType<typeof createServer>;
  readonly #sockets = new Set<Socket>();
  readonly #host: string;
  #port: number;

  constructor(
    answer: RequestListener,
    upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void,
    { host, port, tls }: { host: string; port: number; tls: ServerTls | undefined },
  ) {
    const server = tls === undefined ? createServer(answer) : createTlsServer({ cert: tls.cert, key: tls.key }, answer);
    // As a real server: a client may keep an idle connection much longer than Node's 5 s.
    server.keepAliveTimeout = 120_000;
    server.requestTimeout = 0;
    server.on('upgrade', upgrade);
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    this.#server = server;
    this.#host = host;
    this.#port = port;
  }

  get port(): number {
    return this.#port;
  }

  /** Takes connections, always on the same port once it had one. */
  async open(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#port, this.#host, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Resets every connection and refuses new ones. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.resetAll();
    await closed;
  }

  /** Resets every connection, and goes on to take new ones. */
  resetAll(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** Resets the connection of one request. Under TLS the socket of the request is not the one that has the handle. */
  reset({ socket }: IncomingMessage): void {
    const raw = [...this.#sockets].find(({ remotePort }) => remotePort === socket.remotePort);
    raw?.resetAndDestroy();
    socket.destroy();
  }
}
