import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Agent } from '../environment/agent.ts';
import type { Cluster } from '../environment/cluster.ts';
import { eventually, host } from '../environment/host.ts';

/** A file system of its own on which writing can be halted, as it halts on storage that hangs. */
class Halting {
  readonly #path: string;
  #isHalted = false;

  constructor(path: string) {
    this.#path = path;
  }

  async mount(image: string, sizeMiB: number): Promise<void> {
    await writeFile(image, '');
    await truncate(image, sizeMiB << 20);
    await host(['mkfs.ext4', '-q', '-O', '^has_journal', image]);
    await mkdir(this.#path, { recursive: true, mode: 0o700 });
    await host(['mount', '-o', 'loop', image, this.#path]);
  }

  async halt(): Promise<void> {
    if (!this.#isHalted) await host(['fsfreeze', '--freeze', this.#path]);
    this.#isHalted = true;
  }

  async resume(): Promise<void> {
    if (this.#isHalted) await host(['fsfreeze', '--unfreeze', this.#path]);
    this.#isHalted = false;
  }
}

/**
 * Makes an agent go on by one transition of its journal at a time. The journal lies on storage that can be halted: an operation is
 * announced to those who watch it, then written down, then begun, so that it stands still in the step that it was about to begin.
 */
export class JournalSteps {
  readonly #storage: Halting;
  readonly #file: string;

  private constructor(storage: Halting, file: string) {
    this.#storage = storage;
    this.#file = file;
  }

  /** For the agent that will be started with the state of this name. */
  static async prepare(cluster: Cluster, stateName = 'default'): Promise<JournalSteps> {
    const state = join(cluster.directory, 'agents', `state-${stateName}`);
    const storage = new Halting(state);
    await storage.mount(join(cluster.directory, `${stateName}.image`), 16);
    return new JournalSteps(storage, join(state, 'journal.jsonl'));
  }

  /** From now on nothing gets into the journal. */
  async halt(): Promise<void> {
    await this.#storage.halt();
  }

  /** From now on everything gets into the journal. */
  async resume(): Promise<void> {
    await this.#storage.resume();
  }

  /** Waits until the agent stands still. */
  async still(agent: Agent): Promise<void> {
    await eventually('the agent to wait for its journal', () => (isHeld(agent.pid) ? true : undefined), {
      everyMs: 2,
      timeoutMs: 60_000,
    });
  }

  /** Lets one transition into the journal, and waits until the agent stands still before the next. */
  async next(agent: Agent): Promise<void> {
    await this.still(agent);
    const before = this.lines().length;
    // Stopped, it cannot begin the next transition before the storage is halted again.
    process.kill(agent.pid, 'SIGSTOP');
    try {
      await eventually('the agent to be stopped', () => (isAtRest(agent.pid) ? true : undefined), { everyMs: 1 });
      await this.#storage.resume();
      await eventually('the transition', () => (this.lines().length > before ? true : undefined), { everyMs: 1 });
      await this.#storage.halt();
    } finally {
      process.kill(agent.pid, 'SIGCONT');
    }
    await this.still(agent);
  }

  lines(): string[] {
    return readFileSync(this.#file, 'utf8').split('\n').slice(0, -1);
  }
}

function tasks(pid: number): { readonly state: string; readonly waitsFor: string }[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) => {
    try {
      const stat = readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8');
      const state = stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
      return [{ state, waitsFor: readFileSync(`/proc/${pid}/task/${task}/wchan`, 'utf8') }];
    } catch {
      return []; // It ended meanwhile.
    }
  });
}

/** Whether a task waits for the lock that a halted file system holds against those who write. */
function isHeld(pid: number): boolean {
  return tasks(pid).some(({ state, waitsFor }) => state === 'D' && waitsFor.includes('percpu_rwsem'));
}

/** A task that is held stops only when it comes back from the kernel. */
function isAtRest(pid: number): boolean {
  return tasks(pid).every(({ state }) => state === 'T' || state === 'D');
}
