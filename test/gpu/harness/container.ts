import { existsSync, readFileSync } from 'node:fs';
import { eventually, host } from '../../real/environment/host.ts';
import { processes } from '../../real/environment/processes.ts';
import type { RuncProcess } from './runc.ts';
import type { OciSpec } from './spec.ts';

export type JsonLine = Readonly<Record<string, unknown>>;

export interface PodIdentity {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

interface Made {
  readonly id: string;
  readonly sandboxId: string;
  readonly pod: PodIdentity;
  readonly spec: OciSpec;
  readonly process: RuncProcess;
  readonly rootPath: string;
  readonly controlDirectory: string;
  readonly log: { readonly stdout: string; readonly stderr: string };
}

/** A container that runc runs, with what it wrote and what its pod is. */
export class RuncContainer {
  readonly name = 'main';
  readonly id: string;
  readonly sandboxId: string;
  readonly pod: PodIdentity;
  readonly spec: OciSpec;
  /** Where its control files are on this machine. */
  readonly controlDirectory: string;
  readonly #made: Made;

  constructor(made: Made) {
    this.#made = made;
    this.id = made.id;
    this.sandboxId = made.sandboxId;
    this.pod = made.pod;
    this.spec = made.spec;
    this.controlDirectory = made.controlDirectory;
  }

  /** Host PID of its first process. */
  get pid(): number {
    return this.#made.process.pid;
  }

  get startedAtNs(): bigint {
    return this.#made.process.startedAtNs;
  }

  /** Undefined while it runs. */
  get exitCode(): number | undefined {
    return this.#made.process.exitCode;
  }

  /**
   * Host PID of the workload's first process: the container's own, or, after a restore, the root of the restored tree, which is
   * process 1 of a PID namespace below the placeholder's.
   */
  workloadPid(): number {
    return this.restoredPid() ?? this.pid;
  }

  /** Host PID of the root of a restored tree, where there is one. */
  restoredPid(): number | undefined {
    const roots = this.processes().filter(
      ({ nspid, state }) => nspid.length > 2 && nspid.at(-1) === 1 && state !== 'Z',
    );
    return roots.find(({ pid }) => pid !== this.pid)?.pid;
  }

  /** All its processes, by the cgroup that they are in. */
  processes() {
    return processes().filter(({ cgroups }) => cgroups.includes(this.id));
  }

  stdout(): string {
    return existsSync(this.#made.log.stdout) ? readFileSync(this.#made.log.stdout, 'utf8') : '';
  }

  stderr(): string {
    return existsSync(this.#made.log.stderr) ? readFileSync(this.#made.log.stderr, 'utf8') : '';
  }

  /** JSON objects among its complete lines of standard output. */
  output(): JsonLine[] {
    const lines = this.stdout().split('\n').slice(0, -1);
    return lines.flatMap((line) => {
      if (!line.startsWith('{')) return [];
      try {
        return [JSON.parse(line) as JsonLine];
      } catch {
        return [];
      }
    });
  }

  /** The first line of output, from line `from` on, for which `wanted` holds. */
  async waitForOutput(
    what: string,
    wanted: (line: JsonLine) => boolean,
    { timeoutMs = 60_000, from = 0, everyMs = 20 }: { timeoutMs?: number; from?: number; everyMs?: number } = {},
  ): Promise<JsonLine> {
    const explain = () => `${this.stdout().slice(-1_000)}\n${this.stderr().slice(-3_000)}`;
    return eventually(
      `${what} from container ${this.pod.name}`,
      () => {
        const ended = this.exitCode;
        const found = this.output().slice(from).find(wanted);
        if (!found && ended !== undefined)
          throw new Error(`container ${this.pod.name} ended with ${ended} before ${what}\n${explain()}`);
        return found;
      },
      { timeoutMs, everyMs, explain },
    );
  }

  /** Makes the workload verify what it holds, and returns its verdict. */
  async check(timeoutMs = 60_000): Promise<JsonLine> {
    const from = this.output().length;
    process.kill(this.workloadPid(), 'SIGUSR1');
    return this.waitForOutput('a verdict', (line) => 'check' in line, { timeoutMs, from });
  }

  /** Ends the container and takes its root filesystem down. */
  async remove(): Promise<void> {
    await this.#made.process.kill();
    await host(['umount', '--lazy', this.#made.rootPath]);
  }
}
