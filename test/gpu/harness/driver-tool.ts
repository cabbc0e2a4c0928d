import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { REPOSITORY } from '../../real/environment/host.ts';
import type { RuncContainer } from './container.ts';
import type { GpuMachine } from './gpus.ts';

type Answer = { readonly ok: boolean; readonly [field: string]: unknown };

export interface ProcessState {
  readonly pid: number;
  readonly command: string;
  readonly state: string;
}

/** A snapshot-cuda of the tests' own: asks the driver about processes beside the agent, and past it. */
export class DriverTool {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(child: ChildProcess, lines: AsyncIterator<string>) {
    this.#child = child;
    this.#lines = lines;
  }

  static async open({ args, env }: GpuMachine['tool']): Promise<DriverTool> {
    const program = join(REPOSITORY, 'native/build/snapshot-cuda');
    if (!existsSync(program)) throw new Error(`${program} is not there: it was not built`);
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'inherit'] });
    await once(child, 'spawn');
    if (child.stdout === null) throw new Error('snapshot-cuda has no standard output');
    const tool = new DriverTool(child, createInterface({ input: child.stdout })[Symbol.asyncIterator]());
    const hello = await tool.#line();
    if (!JSON.parse(hello).ready) throw new Error(`snapshot-cuda has no driver: ${hello}`);
    return tool;
  }

  /** One request of its line protocol, after those that were made before. */
  async ask(request: string): Promise<Answer> {
    const answer = this.#last.then(async () => {
      this.#child.stdin?.write(`${request}\n`);
      return JSON.parse(await this.#line()) as Answer;
    });
    this.#last = answer.catch(() => undefined);
    return answer;
  }

  /** Throws where the driver refuses. */
  async insist(request: string): Promise<Answer> {
    const answer = await this.ask(request);
    if (!answer.ok) throw new Error(`${request}: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** The CUDA processes of a container, by what the driver says of them. */
  async states(container: RuncContainer): Promise<ProcessState[]> {
    const states: ProcessState[] = [];
    for (const { pid, command } of container.processes().filter(({ state }) => state !== 'Z')) {
      if (!(await this.ask(`restore-thread ${pid}`)).ok) continue;
      const answer = await this.ask(`state ${pid}`);
      states.push({ pid, command, state: String(answer['state'] ?? answer['name']) });
    }
    return states;
  }

  /** Device memory that the processes of a container hold, by GPU. */
  async usage(container: RuncContainer): Promise<Map<string, number>> {
    const { processes } = (await this.insist('processes')) as unknown as {
      processes: readonly { readonly pid: number; readonly gpu: string; readonly bytes: number }[];
    };
    const own = new Set(container.processes().map(({ pid }) => pid));
    const bytes = new Map<string, number>();
    for (const one of processes.filter(({ pid }) => own.has(pid)))
      bytes.set(one.gpu, (bytes.get(one.gpu) ?? 0) + one.bytes);
    return bytes;
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }

  async #line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('snapshot-cuda ended');
    return value;
  }
}
