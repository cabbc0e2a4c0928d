import { loadavg } from 'node:os';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import type { CrowdedNode, CrowdPod } from './crowded-node.ts';
import { agentMetrics } from './process-figures.ts';
import { operationEnd } from './worker.ts';

/** From an event on the watch to the first step of the operation, once for each pod. */
export interface Reactions {
  readonly what: string;
  /** Whether the agent may run as many operations at once: otherwise the last ones wait for the first to end. */
  readonly isWithinLimit: boolean;
  readonly milliseconds: readonly number[];
  /** How many of them the agent's own metric has within 50 ms; it counts from when the agent has read the event. */
  readonly withinGoalByMetric: number;
  readonly load: number;
}

export interface ReactionPlan {
  readonly singles: number;
  /** So many bursts of this size. */
  readonly bursts: readonly { readonly size: number; readonly count: number }[];
  readonly real: number;
}

/** What 99 of 100 operations are to begin within. */
export const GOAL_MS = 50;
/** `limits.parallelOperations` of the agent, as it is by default. */
const AT_ONCE = 4;
/** Long enough for the operations before to end, which takes a tenth of a second. */
const BETWEEN_BURSTS_MS = 1_500;

/** Has sources become ready, and measures how long the agent takes to begin with each. */
export async function measureReactions(node: CrowdedNode, plan: ReactionPlan): Promise<Reactions[]> {
  const sources = [...node.pods.values()].filter(({ kind }) => kind === 'source');
  const take = (count: number) => sources.splice(0, count);
  const group = async (what: string, isWithinLimit: boolean, measure: () => Promise<number[]>): Promise<Reactions> => {
    const before = await countWithinGoal(node);
    const milliseconds = await measure();
    const withinGoalByMetric = (await countWithinGoal(node)) - before;
    const [load = 0] = loadavg();
    return { what, isWithinLimit, milliseconds, withinGoalByMetric, load };
  };
  const measured = [await group('one after the other', true, () => oneByOne(node, take(plan.singles)))];
  for (const { size, count } of plan.bursts) {
    const pods = take(size * count);
    measured.push(await group(`in bursts of ${size}`, size <= AT_ONCE, () => inBursts(node, pods, size)));
  }
  return [...measured, await group('real workers, checkpointed', true, () => realOnes(node, take(plan.real)))];
}

async function oneByOne(node: CrowdedNode, pods: readonly CrowdPod[]): Promise<number[]> {
  const milliseconds: number[] = [];
  for (const pod of pods) {
    // At no fixed pace, which timers of the agent might share.
    await sleep(100 + Math.random() * 100);
    node.becomeReady(pod);
    milliseconds.push(await node.reaction(pod));
  }
  return milliseconds;
}

async function inBursts(node: CrowdedNode, pods: readonly CrowdPod[], size: number): Promise<number[]> {
  const milliseconds: number[] = [];
  for (let first = 0; first < pods.length; first += size) {
    const burst = pods.slice(first, first + size);
    await sleep(BETWEEN_BURSTS_MS);
    for (const pod of burst) {
      node.becomeReady(pod);
      // The server sends a line when the turn is over: without this it would send them all at the end.
      await turn();
    }
    milliseconds.push(...(await Promise.all(burst.map((pod) => node.reaction(pod)))));
  }
  return milliseconds;
}

/** Real workers take the place of some pods, and are checkpointed for real. */
async function realOnes(node: CrowdedNode, replaced: readonly CrowdPod[]): Promise<number[]> {
  const milliseconds: number[] = [];
  for (const [n, pod] of replaced.entries()) {
    node.remove(pod);
    const worker = await node.addReal(`real-${n}`);
    await sleep(BETWEEN_BURSTS_MS);
    node.becomeReady(worker.pod);
    milliseconds.push(await node.reaction(worker.pod));
    await operationEnd(node.agent, worker.container);
    await worker.end();
  }
  return milliseconds;
}

async function countWithinGoal({ address }: CrowdedNode): Promise<number> {
  return (await agentMetrics(address.port))(`snapshot_agent_event_latency_seconds_bucket{le="${GOAL_MS / 1000}"}`);
}
