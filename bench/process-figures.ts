import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Clock ticks of /proc in a second: the same on every Linux that Node.js runs on. */
const TICKS = 100;
const HEAP_USED = 'nodejs_heap_size_used_bytes';
/** Often enough to see the heap soon after collections, and without weight beside what else the agent does. */
const HEAP_EVERY_MS = 250;

/** What the agent's process uses, as the kernel and its own metrics say. Bytes and seconds. */
export interface ProcessFigures {
  readonly rss: number;
  /** The part of it that is nobody else's; the rest is mostly the Node.js binary. */
  readonly privateBytes: number;
  /** The most it ever was. */
  readonly peakRss: number;
  readonly heapUsed: number;
  readonly descriptors: number;
  /** Open handles of Node.js: sockets, timers apart. */
  readonly handles: number;
  readonly cpu: number;
  /** Of the programs that the agent started and that have ended. */
  readonly childrenCpu: number;
}

/** Where an agent is looked at: its process, and its metrics on this machine. */
export interface AgentAddress {
  readonly pid: number;
  readonly port: number;
}

export async function processFigures({ pid, port }: AgentAddress): Promise<ProcessFigures> {
  const metrics = await agentMetrics(port);
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .map(Number);
  const seconds = (first: number) => ((fields[first] ?? 0) + (fields[first + 1] ?? 0)) / TICKS;
  return {
    rss: kilobytes(rollup, 'Rss'),
    privateBytes: kilobytes(rollup, 'Private_Clean') + kilobytes(rollup, 'Private_Dirty'),
    peakRss: kilobytes(readFileSync(`/proc/${pid}/status`, 'utf8'), 'VmHWM'),
    heapUsed: metrics(HEAP_USED),
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    handles: metrics('nodejs_active_handles_total'),
    cpu: seconds(11),
    childrenCpu: seconds(13),
  };
}

function kilobytes(text: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1]) * 1024;
}

/** Looks at the heap again and again until it is stopped, which tells the least that it was: most of that is no garbage. */
export function watchHeap({ port }: AgentAddress): { stop(): Promise<number> } {
  let least = Number.POSITIVE_INFINITY;
  let isStopped = false;
  const look = async () => {
    while (!isStopped) {
      least = Math.min(least, (await agentMetrics(port))(HEAP_USED));
      await sleep(HEAP_EVERY_MS);
    }
  };
  const looking = look();
  return {
    stop: async () => {
      isStopped = true;
      await looking;
      return least;
    },
  };
}

/** Reads the agent's metrics; a series is named as in the text format, with its labels. */
export async function agentMetrics(port: number): Promise<(series: string) => number> {
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
  const lines = (await answer.text()).split('\n');
  return (series) => Number(lines.find((line) => line.startsWith(`${series} `))?.slice(series.length + 1));
}
