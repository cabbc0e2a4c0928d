import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import { refusal } from './access.ts';
import { type ApiCall, readExchange } from './calls.ts';
import type { Json, KubeObject } from './resources.ts';
import { keyOf, RESOURCES } from './resources.ts';
import { faultReply, identify, type Service } from './serve.ts';
import { ApiError, badRequest, notFound, statusBody } from './status.ts';

/** What an exec asks for. */
export interface ExecAsked {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly command: readonly string[];
}

/** Which real program of this machine stands for it. */
export type ExecProgram = (asked: ExecAsked) => {
  readonly file: string;
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
};

const [STDIN, STDOUT, STDERR, STATUS, CLOSE] = [0, 1, 2, 3, 255];

/** pods/exec over WebSocket, as API servers from 1.29 on serve it. */
export class Execs {
  program: ExecProgram = () => ({ file: 'false', args: [] });
  protocols: readonly string[] = ['v5.channel.k8s.io', 'v4.channel.k8s.io'];
  readonly #service: Service;
  readonly #server: WebSocketServer;
  readonly #children = new Set<ChildProcessWithoutNullStreams>();

  constructor(service: Service) {
    this.#service = service;
    this.#server = new WebSocketServer({
      noServer: true,
      // The first that the client asks for and the server knows.
      handleProtocols: (asked) => [...asked].find((protocol) => this.protocols.includes(protocol)) ?? false,
    });
  }

  get running(): readonly number[] {
    return [...this.#children].flatMap(({ pid, exitCode, signalCode }) =>
      pid === undefined || exitCode !== null || signalCode !== null ? [] : [pid],
    );
  }

  async serve(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const { user, error } = identify(this.#service, request.headers.authorization);
    const { call } = readExchange(request, '', user);
    this.#service.calls.push(call);
    for (const listener of this.#service.listeners) listener(call);
    if (!(await this.#service.gates.pass(call, 'request'))) return this.#service.reset(request);
    const fault = this.#service.faults.take(call, 'request');
    if (fault?.kind === 'reset') return this.#service.reset(request);
    if (fault?.kind === 'silent') return;
    const refused = faultReply(fault, call);
    try {
      if (refused?.kind === 'answer') throw new ApiError(refused.code, refused.body);
      const asked = this.#asked(call, error);
      this.#server.handleUpgrade(request, socket, head, (client) => this.#run(client, asked));
      call.status = 101;
    } catch (thrown) {
      if (!(thrown instanceof ApiError)) throw thrown;
      call.status = thrown.code;
      refuse(socket, thrown);
    }
  }

  #asked(call: ApiCall, error: ApiError | undefined): ExecAsked {
    const { namespace, name: pod, query, subresource, resource } = call;
    const refused = error ?? refusal(call, this.#service.roles);
    if (refused !== undefined) throw refused;
    if (resource !== 'pods' || subresource !== 'exec') throw badRequest('only pods/exec is upgraded');
    const object = this.#service.world.store.get('pods', keyOf({ namespace, name: pod }));
    if (object === undefined) throw notFound(RESOURCES.pods, pod);
    const names = containersOf(object);
    const container = query.get('container') ?? names[0] ?? '';
    if (!names.includes(container)) throw badRequest(`container ${container} is not valid for pod ${pod}`);
    return { namespace, pod, container, command: query.getAll('command') };
  }

  #run(client: WebSocket, asked: ExecAsked): void {
    const { file, args, env = process.env } = this.program(asked);
    const child = spawn(file, args, { env, stdio: 'pipe' });
    this.#children.add(child);
    let hasEnded = false;
    const end = (status: Json) => {
      if (hasEnded || client.readyState !== client.OPEN) return;
      hasEnded = true;
      client.send(frame(STATUS, Buffer.from(JSON.stringify(status))), () => client.close(1000));
    };
    child.on('error', (error) => end(neverRan(asked.command[0] ?? '', error)));
    child.stdin.on('error', () => undefined);
    const told = Promise.all([forward(client, STDOUT, child.stdout), forward(client, STDERR, child.stderr)]);
    child.on('close', (code, signal) => {
      this.#children.delete(child);
      void told.then(() => end(endStatus(code ?? (signal === null ? 1 : 137))));
    });
    client.on('message', (data: Buffer) => {
      if (data[0] === STDIN && !child.stdin.write(data.subarray(1))) {
        client.pause();
        for (const event of ['drain', 'error', 'close']) child.stdin.once(event, () => client.resume());
      }
      if (data[0] === CLOSE && data[1] === STDIN && client.protocol.startsWith('v5')) child.stdin.end();
    });
    // A runtime does not end a program whose connection broke: its input ends, and nobody reads what it writes.
    client.on('close', () => {
      child.stdin.end();
      child.stdout.destroy();
      child.stderr.destroy();
    });
    client.on('error', () => undefined);
  }
}

async function forward(client: WebSocket, channel: number, stream: AsyncIterable<Buffer>): Promise<void> {
  try {
    for await (const chunk of stream)
      await new Promise<void>((resolve) => client.send(frame(channel, chunk), () => resolve()));
  } catch {
    // The connection is gone.
  }
}

const frame = (channel: number, body: Buffer) => Buffer.concat([Buffer.from([channel]), body]);

function endStatus(code: number): Json {
  if (code === 0) return { metadata: {}, status: 'Success' };
  const message = `command terminated with non-zero exit code: error executing command, exit code ${code}`;
  const details = { causes: [{ reason: 'ExitCode', message: String(code) }] };
  return { metadata: {}, status: 'Failure', message, reason: 'NonZeroExitCode', details };
}

/** In the words of containerd. */
function neverRan(program: string, error: Error): Json {
  const why = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'executable file not found in $PATH' : error.message;
  const runc = `OCI runtime exec failed: exec failed: unable to start container process: exec: "${program}": ${why}: unknown`;
  const message = `Internal error occurred: Internal error occurred: error executing command in container: failed to exec in container: failed to start exec "0": ${runc}`;
  return statusBody(500, message, { reason: 'InternalError' });
}

function containersOf({ spec }: KubeObject): string[] {
  return ((spec?.['containers'] ?? []) as { readonly name: string }[]).map(({ name }) => name);
}

function refuse(socket: Duplex, { code, body }: ApiError): void {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const type = typeof body === 'string' ? 'text/plain' : 'application/json';
  const head = `HTTP/1.1 ${code} Refused\r\ncontent-type: ${type}\r\ncontent-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n`;
  socket.end(head + text);
}
