import type { Cluster } from '../test/real/environment/cluster.ts';
import { type ChurnPlan, measureChurn, type Usage } from './churn.ts';
import { CrowdedNode } from './crowded-node.ts';
import { measureReactions, type ReactionPlan, type Reactions } from './reaction.ts';
import { say } from './terminal.ts';

/** What the watch on 500 pods costs, and how quickly what it tells of is begun. */
export interface WatchResults {
  readonly plan: ChurnPlan & ReactionPlan;
  readonly usages: readonly Usage[];
  readonly reactions: readonly Reactions[];
}

const PLAN = {
  pods: 500,
  targets: 20,
  updatesPerRound: 10_000,
  replacedPerRound: 250,
  idleSeconds: 30,
  singles: 200,
  bursts: [
    { size: 4, count: 40 },
    { size: 40, count: 2 },
  ],
  real: 10,
};

/** One agent through all of it: what it used is noted last after the operations. */
export async function benchWatch(cluster: Cluster, rounds: number): Promise<WatchResults> {
  const plan = { ...PLAN, rounds };
  const node = await CrowdedNode.start(cluster);
  try {
    const ledger = await measureChurn(node, plan, ({ when, rss, cpuUsed, seconds }) =>
      say(
        `${when.padEnd(16)} RSS ${(rss / 1e6).toFixed(1)} MB, CPU ${cpuUsed.toFixed(2)} s in ${seconds.toFixed(1)} s`,
      ),
    );
    const reactions = await measureReactions(node, plan);
    await ledger.note('after operations');
    return { plan, usages: ledger.entries, reactions };
  } finally {
    await node.stop();
  }
}
