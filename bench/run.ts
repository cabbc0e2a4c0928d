import { mkdir, rm } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Cluster } from '../test/real/environment/cluster.ts';
import {
  type Arena,
  agentContender,
  BENCH_BIND,
  type Contender,
  criuTimes,
  plainContender,
  runcContender,
  TIMED_CRIU,
} from './contenders.ts';
import { type Measured, YARDSTICK } from './report.ts';
import { keepOperations, keepWatch, machineFacts } from './results.ts';
import { say } from './terminal.ts';
import { benchWatch } from './watch.ts';

const PARTS = ['operations', 'watch'] as const;
const USAGE = `usage: run.ts [--only operations|watch] [--sizes 300,2048] [--repetitions 5] [--rounds 20]

operations: checkpoint and restore by the agent, by plain CRIU and by runc, one after the other in every repetition.
watch:      how soon the agent begins what the Kubernetes API tells of, and what it uses, with 500 pods on the node.

Writes bench/results.json and bench/results.md; a part that is not measured keeps what was measured before.
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      sizes: { type: 'string', default: '300,2048' },
      repetitions: { type: 'string', default: '5' },
      rounds: { type: 'string', default: '20' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return;
  }
  const { only } = values;
  const sizes = values.sizes.split(',').map(Number);
  const [repetitions, rounds] = [Number(values.repetitions), Number(values.rounds)];
  const isCount = (number: number) => Number.isInteger(number) && number > 0;
  const isKnown = only === undefined || PARTS.some((part) => part === only);
  // A trend needs three, and is looked for in half of them.
  if (!isKnown || ![...sizes, repetitions].every(isCount) || !isCount(rounds - 5)) throw new Error(USAGE);
  if (only !== 'watch') await inCluster((cluster) => benchOperations(cluster, sizes, repetitions));
  if (only !== 'operations')
    await inCluster(async (cluster) => keepWatch(await machineFacts(), await benchWatch(cluster, rounds)));
  say('\nEvery figure is in bench/results.json, these tables are in bench/results.md.');
}

async function inCluster(part: (cluster: Cluster) => Promise<string>): Promise<void> {
  const cluster = await Cluster.start();
  try {
    say(`\n${await part(cluster)}`);
  } finally {
    await cluster.stop();
  }
}

async function benchOperations(cluster: Cluster, sizes: readonly number[], repetitions: number): Promise<string> {
  const machine = await machineFacts();
  const measured = await measure(await contenders(await makeArena(cluster)), sizes, repetitions);
  return keepOperations(machine, measured);
}

async function makeArena(cluster: Cluster): Promise<Arena> {
  const shared = join(cluster.directory, 'shared');
  const agent = await cluster.startAgent({
    binds: [BENCH_BIND],
    config: {
      logLevel: 'info',
      criu: { binaryPath: TIMED_CRIU, environment: { CRIU_TIMES: criuTimes(shared) } },
    },
  });
  await agent.waitForLog('the start', ({ msg }) => msg === 'started');
  await mkdir(shared, { recursive: true });
  await rm(criuTimes(shared), { force: true });
  return { cluster, agent, shared };
}

async function contenders(arena: Arena): Promise<[string, Contender][]> {
  return [
    ['agent', agentContender(arena)],
    [YARDSTICK, plainContender(arena)],
    ['runc', await runcContender(arena)],
  ];
}

/**
 * One contender after the other in every repetition, and another one first each time, so that what else the machine does, and what a
 * contender leaves behind, hits all of them alike.
 */
async function measure(
  all: readonly (readonly [string, Contender])[],
  sizes: readonly number[],
  repetitions: number,
): Promise<Measured[]> {
  const measured: Measured[] = [];
  for (const mebibytes of sizes)
    for (let repetition = 1; repetition <= repetitions; repetition++)
      for (let turn = 0; turn < all.length; turn++) {
        const [contender, run] = all[(repetition + turn) % all.length] as (typeof all)[number];
        const name = `${contender.replace(' ', '-')}-${mebibytes}-${repetition}`;
        const figures = await run(mebibytes, name);
        const [load = 0] = loadavg();
        measured.push({ contender, mebibytes, repetition, load, ...figures });
        const { checkpoint, pause, restore } = figures;
        say(
          `${mebibytes} MiB, repetition ${repetition}, ${contender.padEnd(10)}: checkpoint ${checkpoint.toFixed(3)} s (pause ${pause.toFixed(3)} s), restore ${restore.toFixed(3)} s`,
        );
      }
  return measured;
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`bench: failed: ${error instanceof Error ? error.stack : String(error)}\n`);
    process.exit(1);
  },
);
