import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { expect } from 'vitest';
import type { Answer } from '../../flow/grpc/client.ts';
import type { Cluster, Volume } from '../environment/cluster.ts';
import { eventually } from '../environment/host.ts';
import { processes } from '../environment/processes.ts';
import { Gates } from '../gates.ts';
import { JournalSteps } from './halting.ts';
import { ApiNode, type Plain } from './node.ts';

/** Where an operation is held: before the step begins, or, where a program is named, while that runs in it. */
export interface Place {
  readonly step: string;
  /** A verb of the helper, or `criu`. */
  readonly program?: string;
}

/** The same places, with words for them. */
export function named(places: readonly Place[]): (Place & { readonly where: string })[] {
  return places.map(({ step, program }) =>
    program === undefined
      ? { step, where: `before ${step || 'its first step'}` }
      : { step, program, where: `in ${step}, while ${program} runs` },
  );
}

type Begin = readonly [kind: 'Checkpoint' | 'Restore', on: Plain, more?: object];

/** A node whose operations can be held: before each of their steps by its journal, in the midst of some by the programs they start. */
export class HeldNode {
  readonly node: ApiNode;
  readonly gates: Gates;
  readonly journal: JournalSteps;

  private constructor(node: ApiNode, gates: Gates, journal: JournalSteps) {
    this.node = node;
    this.gates = gates;
    this.journal = journal;
  }

  static async start(config: object = {}): Promise<HeldNode> {
    let holds: readonly [Gates, JournalSteps] | undefined;
    const node = await ApiNode.start(async (cluster) => {
      holds = [await Gates.make(cluster), await JournalSteps.prepare(cluster)];
      const [gates] = holds;
      return { config: { ...gates.config, ...config }, binds: gates.binds };
    });
    if (holds === undefined) throw new Error('nothing was prepared');
    return new HeldNode(node, ...holds);
  }

  /** Lets everything go on. */
  async letGo(): Promise<void> {
    this.gates.openAll();
    await this.journal.resume();
  }

  async stop(): Promise<string[]> {
    await this.letGo();
    return await this.node.stop();
  }

  /** Starts an operation, and holds it there. Before no step: it has begun, and comes to its first step next. */
  async hold({ step, program }: Place, ...begin: Begin): Promise<Answer> {
    return await (program === undefined ? this.#holdBefore(step, begin) : this.#holdIn(step, program, begin));
  }

  /** Lets a held operation go on until it is about to begin this step. */
  async goOnTo(step: string, { name }: Answer): Promise<Answer> {
    for (;;) {
      const operation = await this.node.api.ask('GetOperation', { name });
      if (operation.metadata.step === step && operation.metadata.state === 'OPERATION_STATE_RUNNING') return operation;
      await this.journal.next(this.node.agent);
    }
  }

  async #holdBefore(step: string, [kind, on, more]: Begin): Promise<Answer> {
    await this.journal.halt();
    const accepted = this.node.begin(kind, on, more);
    await this.journal.next(this.node.agent);
    return await this.goOnTo(step, await accepted);
  }

  async #holdIn(step: string, program: string, [kind, on, more]: Begin): Promise<Answer> {
    const criu = kind === 'Checkpoint' ? 'dump' : 'restore';
    if (program === 'criu') this.gates.holdCriu(criu);
    else this.gates.holdHelper(step, program);
    const { name } = await this.node.begin(kind, on, more);
    await this.gates.reached(program === 'criu' ? `criu-${criu}` : 'helper');
    return await this.node.api.ask('GetOperation', { name });
  }

  /** Kills the agent where it stands, and starts it again with what it left. */
  async killAndStart(): Promise<void> {
    const { agent } = this.node;
    process.kill(agent.pid, 'SIGKILL');
    // A task that waits for the storage ends only when that goes on.
    await this.journal.resume();
    await agent.end('SIGKILL');
    this.gates.openAll();
    await this.node.startAgain();
  }

  /** Cancels what is held, lets it go on, and follows it to its end. */
  async cancel({ name }: Pick<Answer, 'name'>): Promise<Answer> {
    const answer = await this.node.api.ask('CancelOperation', { name });
    expect(answer).toMatchObject({ name, done: false });
    await this.letGo();
    return await this.node.end(name);
  }
}

/** Waits until nothing is left of artifacts in the making, and no CRIU at work. */
export async function expectNothingUnderWay(cluster: Cluster, volume: Volume = cluster.volume): Promise<void> {
  const left = () => [...staged(volume), ...criuAtWork(cluster)];
  await eventually('the end of what was under way', () => (left().length === 0 ? true : undefined), {
    explain: () => left().join('\n'),
  });
}

function staged({ hostPath }: Volume): string[] {
  return readdirSync(hostPath).flatMap((id) => {
    const directory = join(hostPath, id, 'versions/tmp');
    return existsSync(directory) ? readdirSync(directory).map((name) => join(directory, name)) : [];
  });
}

/** In the agent's cgroup or in that of a container it restores into. */
function criuAtWork({ directory }: Cluster): string[] {
  return processes()
    .filter(({ cgroups }) => cgroups.includes(basename(directory)))
    .filter(({ command, state }) => /\/opt\/faults\/criu|\/usr\/sbin\/criu/.test(command) && state !== 'Z')
    .map(({ pid, command }) => `${pid} ${command}`);
}
