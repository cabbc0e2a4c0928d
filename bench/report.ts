import type { Figures } from './contenders.ts';
import { median } from './statistics.ts';
import { table } from './terminal.ts';

/** One repetition of one contender. */
export interface Measured extends Figures {
  readonly contender: string;
  readonly mebibytes: number;
  readonly repetition: number;
  /** How busy the machine was, with this and with everything else: its load average of the last minute. */
  readonly load: number;
}

/** Medians of one contender at one size, and how they compare to plain CRIU's. */
export interface Summary {
  readonly contender: string;
  readonly mebibytes: number;
  readonly repetitions: number;
  readonly load: number;
  readonly checkpoint: number;
  readonly pause: number;
  readonly restore: number;
  readonly checkpointRatio: number;
  readonly pauseRatio: number;
  readonly restoreRatio: number;
  readonly parts: Readonly<Record<string, number>>;
}

export const YARDSTICK = 'plain criu';

export function summarise(measured: readonly Measured[]): Summary[] {
  const groups = new Map<string, Measured[]>();
  for (const row of measured) {
    const key = `${row.mebibytes} ${row.contender}`;
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  const medians = [...groups.values()].flatMap((rows) => {
    const [first] = rows;
    if (first === undefined) return [];
    const of = (pick: (row: Measured) => number) => median(rows.map(pick));
    const parts = Object.fromEntries(Object.keys(first.parts).map((name) => [name, of((row) => row.parts[name] ?? 0)]));
    const { contender, mebibytes } = first;
    const { checkpoint, pause, restore } = {
      checkpoint: of((row) => row.checkpoint),
      pause: of((row) => row.pause),
      restore: of((row) => row.restore),
    };
    const load = of((row) => row.load);
    return [{ contender, mebibytes, repetitions: rows.length, load, checkpoint, pause, restore, parts }];
  });
  const order = medians.toSorted((a, b) => a.mebibytes - b.mebibytes || a.contender.localeCompare(b.contender));
  return order.map((row) => {
    const base = medians.find(({ contender, mebibytes }) => contender === YARDSTICK && mebibytes === row.mebibytes);
    const ratio = (name: 'checkpoint' | 'pause' | 'restore') => row[name] / (base?.[name] ?? Number.NaN);
    return {
      ...row,
      checkpointRatio: ratio('checkpoint'),
      pauseRatio: ratio('pause'),
      restoreRatio: ratio('restore'),
    };
  });
}

const seconds = (value: number) => value.toFixed(3);
const ratio = (value: number) => value.toFixed(2);
const ms = (value: number | undefined) => (value === undefined ? '' : (value * 1000).toFixed(0));

/** The tables that people read. */
export function report(summaries: readonly Summary[]): string {
  const agents = summaries.filter(({ contender }) => contender === 'agent');
  const loads = summaries.map(({ load }) => load);
  return [
    `Medians in seconds; × is the ratio to ${YARDSTICK}. Page cache warm.`,
    `Load average of the machine meanwhile: ${Math.min(...loads).toFixed(1)} to ${Math.max(...loads).toFixed(1)}.`,
    '',
    comparison(summaries),
    '',
    "The agent's restore in milliseconds, from the running placeholder to the end of the operation:",
    '',
    restoreParts(agents, summaries),
    ...(['checkpoint', 'restore'] as const).flatMap((action) => [
      '',
      `Steps of the agent's ${action}, milliseconds:`,
      '',
      steps(agents, action),
    ]),
  ].join('\n');
}

function comparison(summaries: readonly Summary[]): string {
  const head = ['memory, contender', 'checkpoint', '×', 'of it pause', '×', 'restore', '×'];
  const rows = summaries.map((row) => [
    `${row.mebibytes} MiB  ${row.contender}`,
    seconds(row.checkpoint),
    ratio(row.checkpointRatio),
    seconds(row.pause),
    ratio(row.pauseRatio),
    seconds(row.restore),
    ratio(row.restoreRatio),
  ]);
  return table([head, ...rows]);
}

const RESTORE_PARTS = {
  'restore wall': 'placeholder running → restored',
  'restore noticed': '  until the agent begins (the runtime is polled)',
  'restore criu': "  CRIU's own time",
  'restore fill': '  filling of the large memory',
  'restore agent': '  everything else: the agent',
} as const;

/** Where the time of the agent's restore goes, and what it adds to plain CRIU. */
function restoreParts(agents: readonly Summary[], all: readonly Summary[]): string {
  const net = agents.map(({ mebibytes, restore }) => {
    const plain = all.find((row) => row.contender === YARDSTICK && row.mebibytes === mebibytes);
    return ms(restore - (plain?.restore ?? Number.NaN));
  });
  return table([
    ['', ...agents.map(({ mebibytes }) => `${mebibytes} MiB`)],
    ...Object.entries(RESTORE_PARTS).map(([name, label]) => [label, ...agents.map(({ parts }) => ms(parts[name]))]),
    [`operation (without noticing) minus ${YARDSTICK}`, ...net],
  ]);
}

function steps(agents: readonly Summary[], action: 'checkpoint' | 'restore'): string {
  const prefix = `${action} step `;
  const names = Object.keys(agents[0]?.parts ?? {}).filter((name) => name.startsWith(prefix));
  return table([
    ['', ...agents.map(({ mebibytes }) => `${mebibytes} MiB`)],
    ...names.map((name) => [name.slice(prefix.length), ...agents.map(({ parts }) => ms(parts[name]))]),
  ]);
}
