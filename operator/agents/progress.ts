import type { OperationMessage } from '../../contract/agent-api/messages.ts';

const GIB = 2 ** 30;
const GB = 1e9;

/** How far an operation is, for people: `criu-dump 41% of 36.0 GiB, 2.1 GB/s`. */
export function progressText({ state, step, waiting_for: waitingFor, progress }: OperationMessage['metadata']): string {
  if (state === 'OPERATION_STATE_QUEUED') return 'the agent begins soon';
  if (state === 'OPERATION_STATE_WAITING') return `the agent waits: ${waitingFor}`;
  if (state !== 'OPERATION_STATE_RUNNING') return 'the agent has ended its work';
  const name = step === '' ? 'begins' : step;
  if (progress === null || progress.bytes === 0) return name;
  const { bytes, total_bytes: total, bytes_per_second: rate } = progress;
  const speed = rate > 0 ? `, ${(rate / GB).toFixed(1)} GB/s` : '';
  if (total <= 0) return `${name} ${(bytes / GIB).toFixed(1)} GiB${speed}`;
  const percent = Math.min(100, Math.floor((bytes / total) * 100));
  return `${name} ${percent}% of ${(total / GIB).toFixed(1)} GiB${speed}`;
}
