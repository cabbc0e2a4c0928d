import type { AgentClient } from '../../contract/agent-api/client.ts';
import type {
  CapturedProcess,
  CheckpointContents,
  CheckpointMessage,
  CheckpointRecord,
  StepTiming,
} from '../../contract/agent-api/messages.ts';
import { bytesText, secondsText, shareText, timeText } from './amounts.ts';
import { barText } from './bars.ts';
import { isoTime } from './plain.ts';
import { listText, tableText } from './table.ts';
import { counted, visible } from './text.ts';

const MAX_PROCESSES = 40;

interface Shown {
  readonly columns: number;
  readonly errorOf: AgentClient['errorOf'];
}

/** An artifact on a page for people. */
export function inspectText(
  checkpoint: CheckpointMessage,
  contents: CheckpointContents | undefined,
  { columns, errorOf }: Shown,
): string {
  const { record, problem, readers } = checkpoint;
  const error = problem === null ? undefined : errorOf(problem);
  const head = listText([
    ['artifact', visible(`${checkpoint.checkpoint_id}@${checkpoint.version}`)],
    ['location', visible(checkpoint.location)],
    ['state', error === undefined ? 'complete' : visible(`${error.reason}: ${error.message}`)],
    ['read by', visible(readers.join(', '))],
  ]);
  if (record === null) return head;
  const parts = [
    head,
    listText(originOf(record)),
    `captured with\n${listText(platformOf(record), '  ')}`,
    `sizes\n${sizesText(record, columns)}`,
    contents === undefined ? '' : `processes\n${processesText(contents)}`,
    `time: the source stood still for ${secondsText(record.pause_seconds)}\n${timingsText(record.timings, columns)}`,
  ];
  return parts.filter((part) => part !== '').join('\n');
}

function originOf(record: CheckpointRecord): [string, string][] {
  const { source, create_time: created } = record;
  return [
    ['made', created === null ? '' : `${timeText(isoTime(created))} UTC, by agent ${visible(record.agent_version)}`],
    ['from', source === null ? '' : visible(`${source.namespace}/${source.pod}/${source.container}`)],
    ['node', visible(source?.node ?? '')],
    ['image', visible(source?.image ?? '')],
    ['operation', visible(record.operation_id)],
    ['trace', visible(record.trace_id)],
  ];
}

/** What the record says of the machine, as pairs of name and value. */
export function platformOf(record: CheckpointRecord): [string, string][] {
  const { platform } = record;
  const gpus = (platform?.gpus ?? []).map(
    ({ model, uuid, used_bytes: used }) => `${model} ${uuid}, ${bytesText(used)} held`,
  );
  const cpu = `${platform?.cpu_vendor ?? ''} family ${platform?.cpu_family ?? 0} model ${platform?.cpu_model ?? 0}, ${counted(platform?.cpu_features.length ?? 0, 'feature')}`;
  const pairs: [string, string][] = [
    ['architecture', platform?.arch ?? ''],
    ['kernel', platform?.kernel ?? ''],
    ['cpu', platform?.cpu_vendor ? cpu : ''],
    ['criu', platform?.criu ?? ''],
    ['cgroup', platform?.cgroup_version ? `version ${platform.cgroup_version}` : ''],
    ['gpu driver', platform?.gpu_driver ?? ''],
    ['gpus', gpus.join('; ') || (platform?.gpu_models ?? []).join(', ')],
    ['gpu state', gpuState(record)],
    ['memory limit', record.memory_limit_bytes > 0 ? bytesText(record.memory_limit_bytes) : 'none'],
    ['mounts', counted(record.mounts.length + record.mounts_left_out, 'mount')],
  ];
  return pairs.map(([name, value]) => [name, visible(value)]);
}

function gpuState({ platform }: CheckpointRecord): string {
  if (!platform?.gpu_driver) return '';
  return platform.gpu_proven
    ? 'restored at the source after the dump'
    : 'not proven: nobody tried whether the driver restores it';
}

/** The parts of an artifact by name, with their bytes. */
function partsOf({ sizes }: CheckpointRecord): readonly (readonly [name: string, bytes: number])[] {
  if (sizes === null) return [];
  return [
    ['large memory', sizes.bulk_bytes],
    ["CRIU's images", sizes.criu_bytes],
    ['changed files', sizes.rootfs_bytes],
    ['shared memory files', sizes.shm_bytes],
  ];
}

function sizesText(record: CheckpointRecord, columns: number): string {
  const { sizes } = record;
  if (sizes === null) return '';
  const parts = partsOf(record);
  const whole = parts.reduce((sum, [, bytes]) => sum + bytes, 0);
  const rows = parts.map(([name, bytes]) => [name, bytesText(bytes), shareText(bytes, whole), bytes / whole] as const);
  const more: [string, string][] = [
    ['all files', `${bytesText(sizes.total_bytes)} in ${counted(sizes.files, 'file')}`],
    ['zeros', `${bytesText(sizes.zero_bytes)}, not stored`],
    ['device memory', sizes.device_bytes > 0 ? `${bytesText(sizes.device_bytes)} of the memory` : ''],
  ];
  return chart(rows, columns) + listText(more, '  ');
}

/** The longest bar fills what the terminal has left. */
function timingsText(timings: readonly StepTiming[], columns: number): string {
  const whole = timings.reduce((sum, { seconds }) => sum + seconds, 0);
  const longest = Math.max(...timings.map(({ seconds }) => seconds), 0);
  const rows = timings.map(
    ({ step, seconds }) => [visible(step), secondsText(seconds), shareText(seconds, whole), seconds / longest] as const,
  );
  return `${chart(rows, columns)}  ${secondsText(whole)} until the record was written\n`;
}

type ChartRow = readonly [name: string, amount: string, share: string, bar: number];

function chart(rows: readonly ChartRow[], columns: number): string {
  const widest = (index: 0 | 1 | 2) => Math.max(0, ...rows.map((row) => row[index].length));
  const [names, amounts, shares] = [widest(0), widest(1), widest(2)];
  const room = Math.max(8, Math.min(48, columns - names - amounts - shares - 10));
  return rows
    .map(([name, amount, share, part]) => {
      const text = `  ${name.padEnd(names)}  ${amount.padStart(amounts)}  ${share.padStart(shares)}  `;
      return `${text}${barText(part, room)}`.trimEnd().concat('\n');
    })
    .join('');
}

const PROCESS_COLUMNS = [
  { title: '  PID', right: true },
  { title: 'NAME' },
  { title: 'THREADS', right: true },
  { title: 'MAPPED', right: true },
  { title: 'STORED', right: true },
  { title: 'DEVICE', right: true },
  { title: 'LARGEST' },
];

/** The tree: children are indented below their parents. */
function processesText({ processes, processes_left_out: leftOut }: CheckpointContents): string {
  const rows = inTree(processes).map(({ process, depth }) => [
    `  ${process.pid}`,
    `${'  '.repeat(depth)}${visible(process.name)}${stateText(process)}`,
    String(process.threads),
    bytesText(process.memory_bytes),
    bytesText(process.stored_bytes),
    process.cuda ? bytesText(process.device_bytes) : '-',
    largestText(process),
  ]);
  const hidden = leftOut + Math.max(0, rows.length - MAX_PROCESSES);
  const more = hidden > 0 ? `  and ${counted(hidden, 'process', 'processes')} more (-o json)\n` : '';
  return tableText(PROCESS_COLUMNS, rows.slice(0, MAX_PROCESSES)) + more;
}

/** What is worth saying of a process that does not simply run. */
export function stateText({ state }: CapturedProcess): string {
  if (state === 'PROCESS_STATE_STOPPED') return ' (stopped)';
  return state === 'PROCESS_STATE_ENDED' ? ' (ended)' : '';
}

/** Each process below its parent. Damaged trees may have circles: what is not reached from a root comes last. */
export function inTree(processes: readonly CapturedProcess[]): { process: CapturedProcess; depth: number }[] {
  const known = new Set(processes.map(({ pid }) => pid));
  const placed = new Set<CapturedProcess>();
  const result: { process: CapturedProcess; depth: number }[] = [];
  const place = (process: CapturedProcess, depth: number) => {
    if (placed.has(process)) return;
    placed.add(process);
    result.push({ process, depth });
    for (const child of processes.filter((one) => one.parent_pid === process.pid)) place(child, depth + 1);
  };
  for (const process of processes) if (!known.has(process.parent_pid) || process.parent_pid === 0) place(process, 0);
  for (const process of processes) place(process, 0);
  return result;
}

function largestText({ areas }: CapturedProcess): string {
  const [first] = [...areas].sort((a, b) => b.stored_bytes - a.stored_bytes);
  if (first === undefined || first.stored_bytes === 0) return '-';
  const what = first.path === '' ? kindText(first.kind) : first.path;
  return visible(`${bytesText(first.stored_bytes)} ${what}`);
}

/** What an area of memory is, in words. */
export function kindText(kind: string): string {
  const own = kind.replace('MEMORY_KIND_', '').toLowerCase();
  return own === 'special' ? "the kernel's" : own === 'unspecified' ? 'unknown' : own;
}
