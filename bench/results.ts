import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { VERSION } from '../contract/version.ts';
import { AGENT_ROOT, host } from '../test/real/environment/host.ts';
import { type Measured, report, type Summary, summarise, YARDSTICK } from './report.ts';
import type { WatchResults } from './watch.ts';
import { watchReport } from './watch-report.ts';

const FILE = join(import.meta.dirname, 'results.json');
/** The same for people. */
const TABLES = join(import.meta.dirname, 'results.md');

/** What each part of the benchmark measured last. */
interface Results {
  readonly operations?: Part<{
    readonly yardstick: string;
    readonly summaries: readonly Summary[];
    readonly measured: readonly Measured[];
  }>;
  readonly watch?: Part<WatchResults>;
}

type Part<T> = T & { readonly measuredAt: string; readonly machine: Machine };
type Machine = Awaited<ReturnType<typeof machineFacts>>;

/** Takes the place of what was measured before of the same part; returns the tables. */
export function keepOperations(machine: Machine, measured: readonly Measured[]): string {
  const summaries = summarise(measured);
  keep({ operations: { ...stamp(machine), yardstick: YARDSTICK, summaries, measured } });
  return report(summaries);
}

export function keepWatch(machine: Machine, results: WatchResults): string {
  keep({ watch: { ...stamp(machine), ...results } });
  return watchReport(results);
}

const stamp = (machine: Machine) => ({ measuredAt: new Date().toISOString(), machine });

function keep(part: Results): void {
  const before = existsSync(FILE) ? (JSON.parse(readFileSync(FILE, 'utf8')) as Results) : {};
  const results = { ...before, ...part };
  writeFileSync(FILE, `${JSON.stringify(results, rounded, 2)}\n`);
  writeFileSync(TABLES, page(results));
}

function page({ operations, watch }: Results): string {
  return [
    '# What `make bench` measured last',
    ...(operations === undefined
      ? []
      : section('Checkpoint and restore', operations.machine, report(operations.summaries))),
    ...(watch === undefined ? [] : section('The watch on many pods', watch.machine, watchReport(watch))),
    '',
  ].join('\n');
}

function section(title: string, machine: Machine, text: string): string[] {
  const { cpu, threads, kernel, criu, runc, commit } = machine;
  const where = `${cpu}, ${threads} CPUs, kernel ${kernel}, ${criu}, ${runc}, commit ${commit.slice(0, 12)}`;
  return ['', `## ${title}`, '', where, '', '```', text, '```'];
}

export async function machineFacts() {
  const version = async (...argv: [string, ...string[]]) => (await host(argv)).trim().split('\n')[0] ?? '';
  const [one = 0, five = 0, fifteen = 0] = loadavg();
  return {
    cpu: cpus()[0]?.model ?? '',
    threads: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: release(),
    loadAtStart: { one, five, fifteen },
    agent: VERSION,
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
