import { readFileSync, writeFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { AGENT_VERSION } from '../agent/version.ts';
import { Cluster } from '../test/real/environment/cluster.ts';
import { AGENT_ROOT, host } from '../test/real/environment/host.ts';
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
import { type Measured, report, summarise, YARDSTICK } from './report.ts';
import { say } from './terminal.ts';

const RESULTS = join(import.meta.dirname, 'results.json');
/** The same for people. */
const TABLES = join(import.meta.dirname, 'results.md');
const USAGE = `usage: run.ts [--sizes 300,2048] [--repetitions 5]

Measures checkpoint and restore by the agent, by plain CRIU and by runc, one after the other in every repetition, and
writes bench/results.json and bench/results.md.
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      sizes: { type: 'string', default: '300,2048' },
      repetitions: { type: 'string', default: '5' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return;
  }
  const sizes = values.sizes.split(',').map(Number);
  const repetitions = Number(values.repetitions);
  if (![...sizes, repetitions].every((number) => Number.isInteger(number) && number > 0)) throw new Error(USAGE);
  const machine = await machineFacts();
  const cluster = await Cluster.start();
  try {
    const arena = await makeArena(cluster);
    const measured = await measure(await contenders(arena), sizes, repetitions);
    const summaries = summarise(measured);
    const text = report(summaries);
    say(`\n${text}`);
    const results = { measuredAt: new Date().toISOString(), machine, yardstick: YARDSTICK, summaries, measured };
    writeFileSync(RESULTS, `${JSON.stringify(results, rounded, 2)}\n`);
    writeFileSync(TABLES, page(machine, text));
    say('\nEvery figure is in bench/results.json, these tables are in bench/results.md.');
  } finally {
    await cluster.stop();
  }
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

function page(machine: Awaited<ReturnType<typeof machineFacts>>, text: string): string {
  const { cpu, threads, kernel, criu, runc, commit } = machine;
  const where = `${cpu}, ${threads} CPUs, kernel ${kernel}, ${criu}, ${runc}, commit ${commit.slice(0, 12)}`;
  return `# What \`make bench\` measured last\n\n${where}\n\n\`\`\`\n${text}\n\`\`\`\n`;
}

async function machineFacts() {
  const version = async (...argv: [string, ...string[]]) => (await host(argv)).trim().split('\n')[0] ?? '';
  const [one = 0, five = 0, fifteen = 0] = loadavg();
  return {
    cpu: cpus()[0]?.model ?? '',
    threads: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: release(),
    loadAtStart: { one, five, fifteen },
    agent: AGENT_VERSION,
    commit: await version('git', 'rev-parse', 'HEAD').catch(() => ''),
    criu: readFileSync(`${AGENT_ROOT}.stamp`, 'utf8').trim().split('\n').at(-1) ?? '',
    runc: await version('runc', '--version'),
    containerd: await version('containerd', '--version'),
    node: process.version,
  };
}

/** Ten microseconds are finer than anything here is repeatable. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === 'number' ? Number(value.toFixed(5)) : value;
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`bench: failed: ${error instanceof Error ? error.stack : String(error)}\n`);
    process.exit(1);
  },
);
