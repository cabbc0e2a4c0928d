import type { Usage } from './churn.ts';
import { GOAL_MS, type Reactions } from './reaction.ts';
import { median, percentile, trend } from './statistics.ts';
import { table } from './terminal.ts';
import type { WatchResults } from './watch.ts';

const RSS_GOAL = 150e6;

const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
const ms = (value: number) => value.toFixed(1);
const verdict = (isMet: boolean) => (isMet ? 'met' : 'missed');

/** The tables that people read. */
export function watchReport({ plan, usages, reactions }: WatchResults): string {
  const loads = [...usages, ...reactions].map(({ load }) => load);
  return [
    `${plan.pods} pods on the node, ${plan.targets} of them restore targets that wait for an artifact, the others sources that load.`,
    'API server, kubelet and container runtime are fakes behind real sockets: so many real pods do not fit this machine.',
    'The agent is the one that was built, its storage and its helper programs are real.',
    `Load average of the machine meanwhile: ${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)}.`,
    '',
    "From the API server's writing of the event to the first step of the operation, milliseconds:",
    '',
    reactionTable(reactions),
    '',
    'What the agent used. MB are 10^6 bytes. The heap includes garbage; the least that was seen of it in a round has little.',
    'CPU in seconds, of the agent and of the programs that it started.',
    `A round: ${plan.updatesPerRound} updates as fast as they can be written, then ${plan.replacedPerRound} pods deleted and others made.`,
    '',
    usageTable(usages),
    '',
    ...conclusions(usages),
  ].join('\n');
}

function reactionTable(reactions: readonly Reactions[]): string {
  const head = ['', 'pods', 'median', 'p90', 'p99', 'most', `p99 under ${GOAL_MS}`, `under ${GOAL_MS} by its metric`];
  const rows = reactions.map(({ what, isWithinLimit, milliseconds, withinGoalByMetric }) => {
    const p99 = percentile(milliseconds, 0.99);
    const figures = [median(milliseconds), percentile(milliseconds, 0.9), p99, Math.max(...milliseconds)].map(ms);
    const goal = isWithinLimit ? verdict(p99 < GOAL_MS) : '4 at once';
    return [what, `${milliseconds.length}`, ...figures, goal, `${withinGoalByMetric}`];
  });
  return table([head, ...rows]);
}

function usageTable(usages: readonly Usage[]): string {
  const head = ['', 'RSS', 'its own', 'heap', 'least', 'CPU', 'programs', 'in', 'files', 'handles'];
  const rows = usages.map((usage) => [
    usage.when,
    megabytes(usage.rss),
    megabytes(usage.privateBytes),
    megabytes(usage.heapUsed),
    usage.leastHeap === undefined ? '' : megabytes(usage.leastHeap),
    usage.cpuUsed.toFixed(2),
    usage.childrenCpuUsed.toFixed(2),
    usage.seconds.toFixed(1),
    `${usage.descriptors}`,
    `${usage.handles}`,
  ]);
  return table([head, ...rows]);
}

function conclusions(usages: readonly Usage[]): string[] {
  const rounds = usages.filter(({ updates }) => updates > 0);
  // In the first half V8 still compiles what is called often, and finds out how much room it needs.
  const settled = rounds.slice(Math.floor(rounds.length / 2));
  const idle = usages.filter(({ when }) => when.startsWith('idle'));
  const sum = (of: readonly Usage[], pick: (usage: Usage) => number) => of.reduce((all, one) => all + pick(one), 0);
  const peak = Math.max(...usages.map(({ peakRss }) => peakRss));
  const perUpdate = sum(rounds, ({ cpuUsed }) => cpuUsed) / sum(rounds, ({ updates }) => updates);
  const whileIdle = sum(idle, (one) => one.cpuUsed + one.childrenCpuUsed) / sum(idle, ({ seconds }) => seconds);
  const rss = trend(settled.map((one) => one.rss));
  const least = trend(settled.map(({ leastHeap = Number.NaN }) => leastHeap));
  return [
    `RSS at its most ${megabytes(peak)} MB; goal under ${RSS_GOAL / 1e6} MB: ${verdict(peak < RSS_GOAL)}.`,
    `Growth from round to round in the second half of them, by least squares: RSS ${growth(rss)}, least heap ${growth(least)}.`,
    `Goal none, of the least heap, by twice the standard error: ${verdict(least.slope <= 2 * least.standardError)}.`,
    `CPU: ${(perUpdate * 1e6).toFixed(0)} microseconds for an update, ${(whileIdle * 100).toFixed(1)} % of a processor while idle.`,
  ];
}

function growth({ slope, standardError }: ReturnType<typeof trend>): string {
  return `${slope < 0 ? '-' : '+'}${megabytes(Math.abs(slope))} ± ${megabytes(standardError)} MB`;
}
