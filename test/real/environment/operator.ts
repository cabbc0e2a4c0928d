import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { merged, type Tree } from './agent.ts';
import type { JsonLine } from './container.ts';
import { eventually, REPOSITORY } from './host.ts';

const PROGRAM = join(REPOSITORY, 'dist/operator/snapshot-operator.mjs');

/** The operator, as built: one process with a configuration and a log of its own. */
export class Operator {
  readonly webhookPort: number;
  /** Where it serves metrics and health. */
  readonly httpPort: number;
  readonly #directory: string;
  readonly #config: Tree;
  #child: ChildProcess | undefined;
  #from = 0;

  private constructor(directory: string, config: Tree, ports: { readonly webhook: number; readonly http: number }) {
    this.#directory = directory;
    this.#config = config;
    [this.webhookPort, this.httpPort] = [ports.webhook, ports.http];
  }

  /** Starts it. What it is configured with besides ports and log level stands in `config`. */
  static async start(directory: string, config: Tree): Promise<Operator> {
    if (!existsSync(PROGRAM)) throw new Error("the operator is not built: run 'make build'");
    await mkdir(directory, { recursive: true });
    const ports = { webhook: await freePort(), http: await freePort() };
    const http = { address: `127.0.0.1:${ports.http}` };
    const own = { logLevel: 'debug', http, webhook: { port: ports.webhook } };
    return new Operator(directory, merged(config, own), ports).start();
  }

  /** Starts it again, with what is changed of its configuration. */
  async start(change: Tree = {}): Promise<this> {
    const config = join(this.#directory, 'config.yaml');
    await writeFile(config, stringify(merged(this.#config, change)));
    this.#from = this.logs().length;
    const out = openSync(this.#logFile, 'a');
    const env = { PATH: process.env['PATH'], OPERATOR_IMAGE: 'registry.example.com/snapshot-operator:1' };
    this.#child = spawn(process.execPath, ['--enable-source-maps', PROGRAM, '--config', config], {
      ...{ env, stdio: ['ignore', out, out], detached: true },
    });
    closeSync(out);
    await once(this.#child, 'spawn');
    return this;
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Ends it with a signal, and waits until it is gone. */
  async end(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<number | string | null> {
    const child = this.#child;
    if (child === undefined) return null;
    if (this.running) {
      child.kill(signal);
      await eventually('the end of the operator', () => (this.running ? undefined : true), {
        explain: () => this.lastLines(),
      });
    }
    return child.exitCode ?? child.signalCode;
  }

  /** Everything it wrote, over all its starts; what is no JSON stands under `text`. */
  logs(): JsonLine[] {
    if (!existsSync(this.#logFile)) return [];
    const lines = readFileSync(this.#logFile, 'utf8').split('\n');
    return lines
      .filter((line) => line !== '')
      .map((text) => {
        try {
          return JSON.parse(text) as JsonLine;
        } catch {
          return { text };
        }
      });
  }

  lastLines(count = 40): string {
    const lines = this.logs().slice(-count);
    return `the operator's last lines:\n${lines.map((line) => JSON.stringify(line)).join('\n')}`;
  }

  /** Whether the process that runs now leads. */
  get leads(): boolean {
    return this.running && this.#sinceStart().some(({ msg }) => msg === 'this process leads');
  }

  /** What it answers to a readiness probe: why it is not ready; empty where it is. */
  async unready(): Promise<readonly string[]> {
    if (!this.running) return ['it does not run'];
    return await fetch(`http://127.0.0.1:${this.httpPort}/readyz`).then(
      async (response) => ((await response.json()) as { reasons?: string[] }).reasons ?? [],
      (error: Error) => [error.message],
    );
  }

  /** What it logged since its last start. */
  #sinceStart(): JsonLine[] {
    return this.logs().slice(this.#from);
  }

  get #logFile(): string {
    return join(this.#directory, 'operator.log');
  }
}

/** A port of this machine that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('the machine gives no port');
  return address.port;
}
