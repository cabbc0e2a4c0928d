import type { Readable, Writable } from 'node:stream';

/** One of the two streams that a person or a program reads. */
interface Stream {
  write(text: string): void;
  /** Whether a person watches: progress is shown and lines are fitted only then. */
  readonly isTerminal: boolean;
  /** Width in characters; 80 where it is not known. */
  readonly columns: number;
  /** Whether colours may be used: a terminal, and neither NO_COLOR nor TERM=dumb. */
  readonly hasColors: boolean;
}

/** What a command has of the world besides the network: tests give their own. */
export interface Terminal {
  /** Results. */
  readonly out: Stream;
  /** Everything else: progress, warnings, errors, usage. */
  readonly err: Stream;
  /** What is typed or piped in; `isTTY` where a person can be asked. */
  readonly input: Readable & { readonly isTTY?: boolean };
  /** Results that are bytes, with back-pressure; the same stream as `out`. */
  readonly output: Writable;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted by Ctrl-C or SIGTERM. */
  readonly signal: AbortSignal;
}

const DEFAULT_COLUMNS = 80;

/** The terminal of this process. The first SIGINT or SIGTERM asks for the end; the second one ends it at once. */
export function processTerminal(process: NodeJS.Process): Terminal {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => stop.abort(new Error(`interrupted by ${signal}`)));
  // Whoever reads has seen enough (`| head`): that is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  return {
    out: streamOf(process.stdout, process.env),
    err: streamOf(process.stderr, process.env),
    // Not opened before it is asked for: an open one keeps the program alive.
    get input() {
      return process.stdin;
    },
    output: process.stdout,
    env: process.env,
    signal: stop.signal,
  };
}

function streamOf(stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv): Stream {
  const isTerminal = stream.isTTY === true;
  return {
    write: (text) => void stream.write(text),
    isTerminal,
    get columns() {
      return stream.columns ?? DEFAULT_COLUMNS;
    },
    hasColors: isTerminal && !env['NO_COLOR'] && env['TERM'] !== 'dumb',
  };
}
