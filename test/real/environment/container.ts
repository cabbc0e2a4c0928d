import { existsSync, readFileSync } from 'node:fs';
import type { ContainerInfo, ContainerStatus, Cri } from './cri.ts';
import { eventually } from './host.ts';
import { namespaceOf, processes } from './processes.ts';

export interface LogLine {
  readonly time: string;
  readonly stream: 'stdout' | 'stderr';
  readonly text: string;
}

export type JsonLine = Readonly<Record<string, unknown>>;

/** A container of a test pod. */
export class Container {
  readonly id: string;
  readonly name: string;
  /** Where its control files are on this machine, if it has a control directory. */
  readonly controlDirectory: string | undefined;
  readonly logFile: string;
  readonly #cri: Cri;

  constructor(cri: Cri, made: { id: string; name: string; logFile: string; controlDirectory: string | undefined }) {
    this.#cri = cri;
    this.id = made.id;
    this.name = made.name;
    this.logFile = made.logFile;
    this.controlDirectory = made.controlDirectory;
  }

  async start(): Promise<this> {
    await this.#cri.startContainer(this.id);
    return this;
  }

  async status(): Promise<ContainerStatus & { readonly info: ContainerInfo }> {
    const { status, info } = await this.#cri.containerStatus(this.id);
    return { ...status, info };
  }

  /** Host PID of the container's first process. */
  async pid(): Promise<number> {
    const { info, state } = await this.status();
    if (!info.pid) throw new Error(`container ${this.name} has no process: ${state}`);
    return info.pid;
  }

  /**
   * Host PID of the workload's first process: the container's own, or, after a restore, the root of the restored tree, which is
   * process 1 of a PID namespace below the placeholder's.
   */
  async workloadPid(): Promise<number> {
    const first = await this.pid();
    const own = namespaceOf(first, 'pid');
    const restored = processes().find(
      (one) =>
        one.nspid.length > 2 &&
        one.nspid.at(-1) === 1 &&
        one.pid !== first &&
        one.cgroups.includes(this.id) &&
        isElsewhere(one.pid, own),
    );
    return restored?.pid ?? first;
  }

  async exec(
    ...command: readonly [string, ...string[]]
  ): Promise<{ stdout: string; stderr: string; exitCode: number }> {
    return this.#cri.exec(this.id, command, 20);
  }

  /** Runs a command in it as kubelet runs a probe. */
  async probe(command: readonly [string, ...string[]], timeoutSeconds: number): Promise<{ exitCode: number }> {
    return this.#cri.exec(this.id, command, timeoutSeconds);
  }

  /** Asks the container to end as kubelet does: SIGTERM, and SIGKILL after `graceSeconds`. */
  async stop(graceSeconds = 0): Promise<void> {
    await this.#cri.stopContainer(this.id, graceSeconds);
  }

  async remove(): Promise<void> {
    await this.#cri.removeContainer(this.id);
  }

  /** Complete lines of the container's log file. */
  logs(): LogLine[] {
    if (!existsSync(this.logFile)) return [];
    const lines: LogLine[] = [];
    const partial = { stdout: '', stderr: '' };
    for (const line of readFileSync(this.logFile, 'utf8').split('\n')) {
      const [time = '', stream, tag, ...rest] = line.split(' ');
      if (stream !== 'stdout' && stream !== 'stderr') continue;
      partial[stream] += rest.join(' ');
      if (tag === 'P') continue;
      lines.push({ time, stream, text: partial[stream].replace(/\r$/, '') });
      partial[stream] = '';
    }
    return lines;
  }

  /** JSON objects among the lines of standard output. */
  output(): JsonLine[] {
    return this.logs().flatMap((line) => {
      if (line.stream !== 'stdout' || !line.text.startsWith('{')) return [];
      try {
        return [JSON.parse(line.text) as JsonLine];
      } catch {
        return [];
      }
    });
  }

  /** The first line of output, from line `from` on, for which `wanted` holds. */
  async waitForOutput(
    what: string,
    wanted: (line: JsonLine) => boolean,
    { timeoutMs = 20_000, from = 0 }: { timeoutMs?: number; from?: number } = {},
  ): Promise<JsonLine> {
    const lastLines = () =>
      `its last lines:\n${this.logs()
        .slice(-10)
        .map((line) => line.text)
        .join('\n')}`;
    return eventually(
      `${what} from container ${this.name}`,
      async () => {
        const { state, exit_code } = await this.status();
        const found = this.output().slice(from).find(wanted);
        if (!found && state === 'CONTAINER_EXITED')
          throw new Error(`container ${this.name} ended with ${exit_code} before ${what}; ${lastLines()}`);
        return found;
      },
      { timeoutMs, explain: lastLines },
    );
  }

  /** Until the workload says that it is set up. */
  async ready(timeoutMs = 30_000): Promise<JsonLine> {
    return this.waitForOutput('{"ready":…}', (line) => 'ready' in line, { timeoutMs });
  }

  /** Sends a signal to the workload's first process, by its host PID. */
  async signal(signal: NodeJS.Signals): Promise<void> {
    process.kill(await this.workloadPid(), signal);
  }

  /** Makes the workload verify everything it holds, and returns its verdict: `check` is `ok`, or says what is wrong. */
  async check(timeoutMs = 20_000): Promise<JsonLine> {
    const from = this.output().length;
    await this.signal('SIGUSR1');
    return this.waitForOutput('a verdict', (line) => 'check' in line, { timeoutMs, from });
  }

  /** Until the container ended: its status, with the exit code that the runtime reports. */
  async ended(timeoutMs = 20_000): Promise<ContainerStatus> {
    return eventually(
      `the end of container ${this.name}`,
      async () => {
        const status = await this.status();
        return status.state === 'CONTAINER_EXITED' ? status : undefined;
      },
      { timeoutMs },
    );
  }
}

/** Whether a process is in another PID namespace; one that ended meanwhile is nowhere. */
function isElsewhere(pid: number, own: string): boolean {
  try {
    return namespaceOf(pid, 'pid') !== own;
  } catch {
    return false;
  }
}
