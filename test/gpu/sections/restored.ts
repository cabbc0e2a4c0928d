import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { Bench, Stand, WorkerRequest } from '../bench.ts';
import type { RuncContainer } from '../harness/container.ts';
import { type Finished, requireSuccess } from '../harness/operations.ts';
import type { SectionReport } from '../report.ts';

/** What becomes of a worker that is checkpointed, removed, and restored into a placeholder. */
export interface Moved {
  readonly checkpoint: Finished;
  readonly restore: Finished;
  readonly target: RuncContainer;
}

/** Checkpoints a worker that is set up, removes its container, and restores it into a placeholder of its kind. */
export async function moveWorker(
  bench: Bench,
  stand: Stand,
  worker: RuncContainer,
  request: Pick<WorkerRequest, 'name' | 'memoryLimitBytes' | 'binds' | 'shmBytes'> & {
    readonly args?: readonly string[];
  },
): Promise<Moved> {
  const id = worker.pod.name;
  const checkpoint = requireSuccess(await stand.operations.checkpoint(worker, { id, after: 'stop' }), stand.agent);
  await worker.remove();
  const target = await bench.runPlaceholder(stand, request);
  const restore = requireSuccess(await stand.operations.restore(target, { id, waitSeconds: 30 }), stand.agent);
  return { checkpoint, restore, target };
}

/** What goes through which step, and what bounds it. */
const MOVED: Readonly<Record<string, { readonly bytes: 'device' | 'filled' | 'dumped'; readonly limit: string }>> = {
  'cuda-checkpoint': { bytes: 'device', limit: 'device to host, pinned' },
  'criu-dump': { bytes: 'dumped', limit: 'memory copy, 1 threads' },
  finalize: { bytes: 'dumped', limit: 'memory copy, 16 threads' },
  fill: { bytes: 'filled', limit: 'memory copy, 16 threads' },
  'cuda-restore': { bytes: 'device', limit: 'host to device, pinned' },
};

/** Every step of an operation with its time, and its rate beside what the machine can do where bytes go through it. */
export function reportOperation(
  report: SectionReport,
  title: string,
  finished: Finished,
  limits: Readonly<Record<string, number | string>> = {},
): void {
  const { figures } = finished;
  const own = (figures['criuBytes'] ?? 0) + (figures['bulkBytes'] ?? 0) + (figures['zeroBytes'] ?? 0);
  const amounts = { device: figures['deviceBytes'], filled: figures['filledBytes'], dumped: own };
  report.table(
    title,
    finished.steps.map(({ step, seconds }) => {
      const moved = MOVED[step];
      const bytes = moved === undefined ? 0 : (amounts[moved.bytes] ?? 0);
      const row = { step, seconds };
      if (moved === undefined || bytes === 0 || seconds === 0) return row;
      const rate = { GB: bytes / 1e9, 'GB/s': bytes / seconds / 1e9 };
      return { ...row, ...rate, 'the machine can, GB/s': limits[moved.limit] ?? '' };
    }),
  );
  for (const [name, value] of Object.entries(figures)) report.figure(`${title}: ${name}`, value);
  report.figure(`${title}: request to end`, finished.wallSeconds, 's');
}

const cgroupOf = (pid: number) => readFileSync(`/proc/${pid}/cgroup`, 'utf8');

/** The restored tree is in the placeholder's cgroup, whose limit counts for it. */
export function requireCgroup(container: RuncContainer, limitBytes: number): void {
  const root = container.workloadPid();
  assert.notEqual(root, container.pid, 'nothing was restored into the container');
  assert.equal(cgroupOf(root), cgroupOf(container.pid));
  assert.match(cgroupOf(root), new RegExp(container.id));
  const { limit, current } = memoryOf(root);
  assert.equal(limit, limitBytes);
  // Pages of files count for whoever read them first, which may have been another container.
  const anonymous = Number(/^RssAnon:\s*(\d+)/m.exec(readFileSync(`/proc/${root}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  assert.ok(
    current >= anonymous,
    `the cgroup counts ${current} bytes, the restored process has ${anonymous} of its own`,
  );
}

/** Limit and use of the cgroup that a process is in, of either version. */
function memoryOf(pid: number): { readonly limit: number; readonly current: number } {
  const lines = cgroupOf(pid).split('\n');
  const pathOf = (wanted: RegExp) => lines.find((line) => wanted.test(line))?.split(':')[2];
  const v1 = pathOf(/^\d+:([^:]*,)?memory[,:]/);
  const base = v1 === undefined ? `/sys/fs/cgroup${pathOf(/^0::/)}` : `/sys/fs/cgroup/memory${v1}`;
  const [limit, current] =
    v1 === undefined ? ['memory.max', 'memory.current'] : ['memory.limit_in_bytes', 'memory.usage_in_bytes'];
  const read = (name: string) => Number(readFileSync(`${base}/${name}`, 'utf8'));
  return { limit: read(limit), current: read(current) };
}
