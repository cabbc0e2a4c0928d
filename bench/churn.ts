import { loadavg } from 'node:os';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import type { CrowdedNode } from './crowded-node.ts';
import { type ProcessFigures, processFigures, watchHeap } from './process-figures.ts';

/** What the agent uses at one time, and what it used since the time before. */
export interface Usage extends ProcessFigures {
  readonly when: string;
  readonly seconds: number;
  readonly cpuUsed: number;
  readonly childrenCpuUsed: number;
  /** Updates that were sent in these seconds. */
  readonly updates: number;
  /** The least that the heap was in these seconds, where somebody looked. */
  readonly leastHeap: number | undefined;
  readonly load: number;
}

export interface ChurnPlan {
  readonly pods: number;
  /** So many of them are restore targets that wait for an artifact. */
  readonly targets: number;
  readonly rounds: number;
  readonly updatesPerRound: number;
  /** Pods that are deleted in each round, with others made in their place. */
  readonly replacedPerRound: number;
  readonly idleSeconds: number;
}

/** Long enough for what an event led to, and for a retry of what it found. */
const SETTLE_MS = 3_000;
/** Updates that the server writes before it turns to its connections. */
const AT_ONCE = 50;

/** Notes what the agent uses, from time to time. */
export class Ledger {
  readonly entries: Usage[] = [];
  readonly #node: CrowdedNode;
  readonly #say: (usage: Usage) => void;
  #atMs = performance.now();

  constructor(node: CrowdedNode, say: (usage: Usage) => void) {
    this.#node = node;
    this.#say = say;
  }

  async note(
    when: string,
    { updates = 0, leastHeap }: { readonly updates?: number; readonly leastHeap?: number } = {},
  ): Promise<void> {
    const figures = await processFigures(this.#node.address);
    const [last, nowMs] = [this.entries.at(-1), performance.now()];
    const [load = 0] = loadavg();
    const usage = {
      when,
      ...figures,
      seconds: (nowMs - this.#atMs) / 1000,
      cpuUsed: figures.cpu - (last?.cpu ?? 0),
      childrenCpuUsed: figures.childrenCpu - (last?.childrenCpu ?? 0),
      updates,
      leastHeap,
      load,
    };
    this.#atMs = nowMs;
    this.entries.push(usage);
    this.#say(usage);
  }
}

/** Fills the node with pods, lets it rest, and has them change again and again. Notes what the agent uses after each. */
export async function measureChurn(node: CrowdedNode, plan: ChurnPlan, say: (usage: Usage) => void): Promise<Ledger> {
  const ledger = new Ledger(node, say);
  await ledger.note('started');
  for (let n = 0; n < plan.pods; n += 1) node.add(`pod-${n}`, n < plan.targets ? 'target' : 'source');
  await caughtUp(node, 'full');
  await ledger.note(`${plan.pods} pods`);
  await sleep(plan.idleSeconds * 1000);
  await ledger.note(`idle for ${plan.idleSeconds} s`);
  for (let round = 1; round <= plan.rounds; round += 1) {
    const heap = watchHeap(node.address);
    await update(node, plan.updatesPerRound, round);
    replace(node, plan, round);
    await caughtUp(node, `round-${round}`);
    await ledger.note(`round ${round}`, { updates: plan.updatesPerRound, leastHeap: await heap.stop() });
  }
  await sleep(plan.idleSeconds * 1000);
  await ledger.note(`idle for ${plan.idleSeconds} s`);
  return ledger;
}

/** As fast as the server can: what the agent has not read yet waits in the connection. */
async function update(node: CrowdedNode, count: number, round: number): Promise<void> {
  const pods = [...node.pods.values()];
  for (let n = 0; n < count; n += 1) {
    const pod = pods[n % pods.length];
    if (pod !== undefined) node.annotate(pod, `round ${round}, update ${n}`);
    if (n % AT_ONCE === 0) await turn();
  }
}

/** Others go in each round, sources and waiting targets in turn. */
function replace(node: CrowdedNode, { pods, targets, replacedPerRound }: ChurnPlan, round: number): void {
  for (let n = 0; n < replacedPerRound; n += 1) {
    const index = (round * replacedPerRound + n) % pods;
    const pod = node.pods.get(`pod-${index}`);
    if (pod !== undefined) node.remove(pod);
    node.add(`pod-${index}`, index < targets ? 'target' : 'source');
  }
}

/** Events come in order: when the last pod of all is acted on, the agent has taken everything before it. */
async function caughtUp(node: CrowdedNode, name: string): Promise<void> {
  const pod = node.add(`last-of-${name}`, 'source');
  node.becomeReady(pod);
  await node.reaction(pod);
  node.remove(pod);
  await sleep(SETTLE_MS);
}
