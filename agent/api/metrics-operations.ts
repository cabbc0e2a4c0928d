import { ERRORS } from '../errors.ts';
import type { OperationChange, OperationKind, OperationState, OperationView } from '../operations/operation.ts';
import type { OperationInstruments } from './metrics.ts';
import { amount, boundedLabel, closedLabel } from './metrics-labels.ts';

/** How an operation ended, as metrics and traces say it. */
export type OperationResult = 'succeeded' | 'adopted' | 'refused' | 'failed' | 'unknown';

/** Ways in which a restore is slower than it should be: the page cache was not filled, or most memory goes through CRIU. */
const DEGRADATIONS = ['prefetch-failed', 'read-by-criu'] as const;
/** With less than this it makes no difference who reads it. */
const SLOW_FROM_BYTES = 64 * 2 ** 20;

const SIGNATURE_REASONS = ['SIGNATURE_MISSING', 'KEY_UNKNOWN', 'SIGNATURE_WRONG'];
const KINDS: readonly OperationKind[] = ['checkpoint', 'restore'];
/** Results that are shown as 0 before there is one, so that a rule sees the first. */
const SHOWN_RESULTS: readonly OperationResult[] = ['succeeded', 'refused', 'failed'];

/** What operations tell the metrics. */
export interface OperationMetrics {
  /** For Operations.onChange. Counts an operation when it ends; its steps with it. */
  changed(change: OperationChange): void;
  count(kind: OperationKind, state: OperationState): number;
  /** How many are in one step for longer than that: it is past its deadline, and nothing has ended it. */
  countStuck(kind: OperationKind, deadlineSeconds: number): number;
}

interface Live {
  readonly kind: OperationKind;
  readonly state: OperationState;
  readonly stateSinceMs: number;
  readonly step: string;
  readonly stepSinceMs: number;
}

/** An operation's result; undefined while it has none. */
export function resultOf({ state, adopted }: OperationView): OperationResult | undefined {
  if (state === 'queued' || state === 'waiting' || state === 'running') return undefined;
  return state === 'succeeded' && adopted ? 'adopted' : state;
}

export function observeOperations(instruments: OperationInstruments, now: () => number): OperationMetrics {
  const live = new Map<string, Live>();
  const record = recorder(instruments);
  showZeros(instruments);
  const all = (kind: OperationKind, state: OperationState) =>
    [...live.values()].filter((one) => one.kind === kind && one.state === state);

  return {
    changed: ({ view }) => {
      const [nowMs, before] = [now(), live.get(view.id)];
      if (before?.state === 'queued' && view.state !== 'queued')
        instruments.queueWait.observe(amount(nowMs - before.stateSinceMs) / 1000);
      const result = resultOf(view);
      if (result === undefined) {
        live.set(view.id, follow(view, before, nowMs));
        return;
      }
      live.delete(view.id);
      record(view, result);
    },
    count: (kind, state) => all(kind, state).length,
    countStuck: (kind, deadlineSeconds) =>
      all(kind, 'running').filter(({ stepSinceMs }) => now() - stepSinceMs > deadlineSeconds * 1000).length,
  };
}

function follow({ kind, state, step }: OperationView, before: Live | undefined, nowMs: number): Live {
  const isSameState = before?.state === state;
  const isSameStep = isSameState && before.step === step;
  return {
    kind,
    state,
    step,
    stateSinceMs: isSameState ? before.stateSinceMs : nowMs,
    stepSinceMs: isSameStep ? before.stepSinceMs : nowMs,
  };
}

/** Writes an ended operation into the instruments. */
function recorder(instruments: OperationInstruments): (view: OperationView, result: OperationResult) => void {
  const code = closedLabel(Object.keys(ERRORS));
  const step = boundedLabel(/^[a-z][a-z0-9-]{0,39}$/, 64);
  const reason = boundedLabel(/^[A-Z][A-Z0-9_]{0,62}$/, 200);
  const signature = closedLabel(SIGNATURE_REASONS);
  return (view, result) => {
    const { kind: operation, failure, timings } = view;
    instruments.ended.inc({ operation, result, code: failure === undefined ? '' : code(failure.code) });
    instruments.duration.observe({ operation, result }, durationSeconds(view));
    for (const one of timings) instruments.step.observe({ operation, step: step(one.step) }, amount(one.seconds));
    if (result === 'unknown') instruments.unknown.inc();
    const reasons = new Set(failure?.reasons.map((one) => one.code));
    if (failure !== undefined && reasons.size === 0) reasons.add(failure.code);
    if (result === 'refused') for (const one of reasons) instruments.refusals.inc({ reason: reason(one) });
    if (failure?.code === 'ARTIFACT_UNSIGNED')
      for (const one of reasons) instruments.signatures.inc({ reason: signature(one) });
    recordFigures(instruments, view);
  };
}

/** As the log says it: the sum of the steps. One that failed before its first step took the time since it was started. */
function durationSeconds({ timings, startedAtMs, endedAtMs }: OperationView): number {
  const sum = timings.reduce((seconds, timing) => seconds + amount(timing.seconds), 0);
  if (sum > 0 || startedAtMs === undefined || endedAtMs === undefined) return sum;
  return amount(endedAtMs - startedAtMs) / 1000;
}

/** The figures of the log. A figure is there when its step has ended, also where the operation failed later. */
function recordFigures(instruments: OperationInstruments, view: OperationView): void {
  const { figures, kind } = view;
  const figure = (name: string) => amount(figures[name] ?? 0);
  if (figures['pauseSeconds'] !== undefined) instruments.pause.observe(figure('pauseSeconds'));
  const moved = (direction: 'read' | 'write', medium: 'memory' | 'volume' | 'device', bytes: number) => {
    if (bytes > 0) instruments.bytes.inc({ direction, medium }, bytes);
  };
  const rate = (step: string, bytes: number) => {
    const seconds = view.timings.find((timing) => timing.step === step)?.seconds ?? 0;
    if (bytes > 0 && seconds > 0) instruments.throughput.observe({ step }, bytes / seconds);
  };
  const [criu, bulk, zero] = [figure('criuBytes'), figure('bulkBytes'), figure('zeroBytes')];
  const device = figure('deviceBytes');
  moved(kind === 'restore' ? 'write' : 'read', 'device', device);
  rate(kind === 'restore' ? 'cuda-restore' : 'cuda-checkpoint', device);
  if (kind === 'restore') {
    const filled = figure('filledBytes');
    moved('read', 'volume', filled + criu);
    moved('write', 'memory', filled + criu);
    rate('fill', filled);
    recordSlowPaths(instruments, { criu, filled, unprefetched: figure('unprefetchedBytes') });
  } else if (figures['criuBytes'] !== undefined) {
    recordParts(instruments, figures);
    moved('read', 'memory', criu + bulk + zero);
    moved('write', 'volume', criu + bulk);
    rate('criu-dump', criu + bulk + zero);
    rate('finalize', bulk + zero);
  }
}

function recordParts({ image }: OperationInstruments, figures: OperationView['figures']): void {
  for (const kind of ['criu', 'bulk', 'zero', 'rootfs', 'shm', 'device']) {
    const bytes = figures[`${kind}Bytes`];
    if (bytes !== undefined) image.observe({ kind }, amount(bytes));
  }
}

/** A restore that went on, but more slowly than it should. Nothing else shows it. */
function recordSlowPaths(
  { degraded, degradedBytes }: OperationInstruments,
  bytes: { readonly criu: number; readonly filled: number; readonly unprefetched: number },
): void {
  const slow = (reason: (typeof DEGRADATIONS)[number], count: number) => {
    degraded.inc({ reason });
    degradedBytes.inc({ reason }, count);
  };
  if (bytes.unprefetched > 0) slow('prefetch-failed', bytes.unprefetched);
  if (bytes.criu >= SLOW_FROM_BYTES && bytes.criu > bytes.filled) slow('read-by-criu', bytes.criu);
}

function showZeros({ ended, duration, degraded, degradedBytes, signatures }: OperationInstruments): void {
  for (const operation of KINDS) {
    ended.inc({ operation, result: 'succeeded', code: '' }, 0);
    for (const result of SHOWN_RESULTS) duration.zero({ operation, result });
  }
  for (const reason of DEGRADATIONS) {
    degraded.inc({ reason }, 0);
    degradedBytes.inc({ reason }, 0);
  }
  for (const reason of SIGNATURE_REASONS) signatures.inc({ reason }, 0);
}
