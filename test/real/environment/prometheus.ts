import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { CACHE, eventually, host } from './host.ts';

const TOOLS = join(CACHE, 'prometheus');

/** Makes sure that promtool and prometheus are there. */
async function fetchTools(): Promise<void> {
  await host([join(import.meta.dirname, 'fetch-prometheus.sh'), TOOLS], { timeoutMs: 300_000 });
}

/** Runs promtool to its end, and throws with what it found. `files` are written where it runs; one called `stdin` is what it reads. */
export async function promtool(args: readonly string[], files: Readonly<Record<string, string>>): Promise<void> {
  await fetchTools();
  const directory = await mkdtemp(join(tmpdir(), 'snapshot-promtool-'));
  try {
    for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
    // What it finds it says on standard output, also where it fails.
    const command = 'cd "$1" && shift && { [ ! -e stdin ] || exec <stdin; } && exec "$@" >&2';
    await host(['bash', '-c', command, 'promtool', directory, join(TOOLS, 'promtool'), ...args]);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

interface Answer<T> {
  readonly status: string;
  readonly error?: string;
  readonly data: T;
}

export interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  /** Time and value. */
  readonly value: readonly [number, string];
}

interface RuleState {
  readonly name: string;
  readonly health: string;
  readonly lastError?: string;
  readonly lastEvaluation: string;
}

/** A Prometheus server on this machine that scrapes one target every second, with rules. */
export class Prometheus {
  readonly #child: ChildProcess;
  readonly #directory: string;
  readonly #address: string;

  private constructor(child: ChildProcess, directory: string, address: string) {
    this.#child = child;
    this.#directory = directory;
    this.#address = address;
  }

  /** `labels` are those that the service discovery of a cluster would give the target. */
  static async start(
    target: { readonly address: string; readonly labels: Readonly<Record<string, string>> },
    rulesFile: string,
  ): Promise<Prometheus> {
    await fetchTools();
    const directory = await mkdtemp(join(tmpdir(), 'snapshot-prometheus-'));
    const config = {
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: [rulesFile],
      scrape_configs: [
        { job_name: 'snapshot-agent', static_configs: [{ targets: [target.address], labels: target.labels }] },
      ],
    };
    await writeFile(join(directory, 'prometheus.yml'), stringify(config));
    const args = [
      `--config.file=${join(directory, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(directory, 'data')}`,
      '--web.listen-address=127.0.0.1:0',
    ];
    const child = spawn(join(TOOLS, 'prometheus'), args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let log = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      log += text;
    });
    const address = await eventually(
      'that Prometheus listens',
      () => {
        if (child.exitCode !== null) throw new Error(`Prometheus ended: ${log}`);
        return /msg="Listening on" address=(\S+)/.exec(log)?.[1];
      },
      { explain: () => log },
    );
    return new Prometheus(child, directory, address);
  }

  async query(expression: string): Promise<readonly Sample[]> {
    const { result } = await this.#ask<{ readonly result: readonly Sample[] }>(
      `query?query=${encodeURIComponent(expression)}`,
    );
    return result;
  }

  async rules(): Promise<readonly RuleState[]> {
    const { groups } = await this.#ask<{ readonly groups: readonly { readonly rules: readonly RuleState[] }[] }>(
      'rules',
    );
    return groups.flatMap(({ rules }) => rules);
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode === null) {
      const ended = once(this.#child, 'exit');
      this.#child.kill('SIGTERM');
      await ended;
    }
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #ask<T>(path: string): Promise<T> {
    const answer = (await (await fetch(`http://${this.#address}/api/v1/${path}`)).json()) as Answer<T>;
    if (answer.status !== 'success') throw new Error(`Prometheus refuses ${path}: ${answer.error}`);
    return answer.data;
  }
}
