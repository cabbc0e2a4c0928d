import { Duplex } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import type { Status } from './answer.ts';
import { KubeError } from './error.ts';

/** How a program in a container ended. */
export interface ExecEnd {
  /** Its exit status; undefined where it never ran, was ended by its container's end, or the connection broke. */
  readonly exitCode: number | undefined;
  /** What the server says; empty after exit status 0. */
  readonly message: string;
  /** The end of what it wrote to standard error. */
  readonly stderr: string;
}

export interface ExecSession {
  /** Its standard input and output. It ends when the program does; it is destroyed with an error where the connection breaks. */
  readonly stream: Duplex;
  /** Settles at the end, never throws. */
  readonly ended: Promise<ExecEnd>;
}

/** The first byte of each message says what it belongs to. */
const CHANNEL = { stdin: 0, stdout: 1, stderr: 2, status: 3, close: 255 } as const;
/** Servers and proxies take messages of this size; larger ones some do not. */
const MAX_MESSAGE_BYTES = 32 << 10;
/** What is kept of standard error. */
const MAX_STDERR_BYTES = 8 << 10;

/**
 * Input and output of a program over an open WebSocket that speaks v5 or v4.channel.k8s.io. Reading slowly holds the sender up. The end of
 * the input is told where the protocol can (v5); v4 closes the connection instead, which ends the program.
 */
export function streamOverExec(socket: WebSocket, signal?: AbortSignal): ExecSession {
  const stderr = newTail();
  let hasEnded = false;
  let settle: (end: ExecEnd) => void = () => undefined;
  const ended = new Promise<ExecEnd>((resolve) => {
    settle = resolve;
  });

  const stream = duplexOver(socket, () => signal?.removeEventListener('abort', abort));
  // Whoever reads or writes hears of it as well.
  stream.on('error', () => undefined);
  const abort = () => stream.destroy(signal?.reason as Error);
  signal?.addEventListener('abort', abort, { once: true });

  socket.on('message', (data: RawData) => {
    if (hasEnded) return;
    const message = Buffer.isBuffer(data) ? data : Buffer.concat([data].flat() as Buffer[]);
    const body = message.subarray(1);
    if (message[0] === CHANNEL.stdout && body.length > 0 && !stream.push(body)) socket.pause();
    if (message[0] === CHANNEL.stderr) stderr.add(body);
    if (message[0] !== CHANNEL.status) return;
    // The last that comes. The connection may take its time to close.
    settle(endOf(statusIn(body), stderr.text()));
    hasEnded = true;
    stream.push(null);
    socket.close();
  });
  let broken: Error | undefined;
  socket.on('error', (error) => {
    broken = error;
  });
  socket.on('close', (code) => {
    if (hasEnded) return;
    const message = `the connection broke: ${broken?.message ?? `closed with code ${code}`}`;
    settle({ exitCode: undefined, message, stderr: stderr.text() });
    stream.destroy(new KubeError(`exec: ${message}`, { reason: 'Reset' }));
  });
  return { stream, ended };
}

/** Input and output as a stream; what comes is pushed into it by whoever reads the messages. */
function duplexOver(socket: WebSocket, closed: () => void): Duplex {
  return new Duplex({
    allowHalfOpen: true,
    read: () => socket.resume(),
    write: (chunk: Buffer, _, done) => sendInput(socket, chunk, done),
    final: (done) => {
      if (socket.protocol.startsWith('v5')) socket.send(Buffer.from([CHANNEL.close, CHANNEL.stdin]), () => done());
      else {
        socket.close();
        done();
      }
    },
    destroy: (error, done) => {
      closed();
      socket.terminate();
      done(error);
    },
  });
}

function sendInput(socket: WebSocket, chunk: Buffer, done: (error?: Error | null) => void): void {
  const next = (from: number) => {
    const part = chunk.subarray(from, from + MAX_MESSAGE_BYTES);
    const message = Buffer.concat([Buffer.from([CHANNEL.stdin]), part]);
    socket.send(message, { binary: true }, (error) => {
      if (error) done(error);
      else if (from + part.length < chunk.length) next(from + part.length);
      else done();
    });
  };
  next(0);
}

function statusIn(body: Buffer): ExecStatus {
  try {
    return JSON.parse(body.toString()) as ExecStatus;
  } catch {
    return { message: body.toString().slice(0, 1_000) };
  }
}

/** What the Status at the end of a program says. */
function endOf(status: ExecStatus, stderr: string): ExecEnd {
  if (status.status === 'Success') return { exitCode: 0, message: '', stderr };
  const causes = (status.details?.causes ?? []) as readonly { readonly reason?: string; readonly message?: string }[];
  const code = Number(causes.find(({ reason }) => reason === 'ExitCode')?.message ?? Number.NaN);
  return { exitCode: Number.isInteger(code) ? code : undefined, message: status.message ?? 'it failed', stderr };
}

type ExecStatus = Status & { readonly status?: string };

/** The end of a text, bounded. */
function newTail() {
  let bytes = Buffer.alloc(0);
  return {
    add: (more: Buffer) => {
      bytes = Buffer.concat([bytes, more]).subarray(-MAX_STDERR_BYTES);
    },
    text: () => bytes.toString().trim(),
  };
}
