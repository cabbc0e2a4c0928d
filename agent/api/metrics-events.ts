import type { Capability } from '../operations/service.ts';
import type { EventInstruments } from './metrics.ts';
import { amount, boundedLabel, closedLabel, OTHER } from './metrics-labels.ts';

const VERBS = ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete'];
/** Statuses that call for different remedies; others count by their class. */
const STATUSES = new Set([401, 403, 404, 409, 410, 422, 429]);
const GRPC_CODES = [
  'OK',
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
];
const RELOADS = ['applied', 'needs-restart', 'refused'] as const;

/** `needs-restart`: valid, but a part of it waits for a restart. `refused`: the agent goes on with what it had. */
type ReloadResult = (typeof RELOADS)[number];

/** What the other rooms tell the metrics. None of these calls throws. */
export interface EventMetrics {
  watchReconnected(source: 'kubernetes' | 'runtime', reason: string): void;
  /** `status`: of the HTTP answer; undefined where none came. */
  requestFailed(verb: string, status: number | undefined): void;
  /** The first step of an operation began this long after the event that led to it. */
  eventHandled(seconds: number): void;
  annotationRedriven(): void;
  leaseChanged(kind: string): void;
  capabilitiesSeen(capabilities: readonly Capability[]): void;
  configReloaded(result: ReloadResult): void;
  storageSeen(space: { readonly freeBytes: number; readonly totalBytes: number }): void;
  artifactsSeen(all: { readonly count: number; readonly bytes: number }): void;
  artifactCollected(reason: string, bytes: number): void;
  collectionFailed(): void;
  /** `method`: one that the server has, never what a caller made up. */
  callEnded(call: { readonly method: string; readonly code: string; readonly seconds: number }): void;
}

export function observeEvents(instruments: EventInstruments): EventMetrics {
  return { ...clusterEvents(instruments), ...storageEvents(instruments), ...apiEvents(instruments) };
}

const word = (limit: number) => boundedLabel(/^[A-Za-z][A-Za-z0-9_.-]{0,39}$/, limit);

function clusterEvents(instruments: EventInstruments) {
  const [reconnect, lease, verb] = [word(24), word(12), closedLabel(VERBS)];
  const source = closedLabel(['kubernetes', 'runtime']);
  return {
    watchReconnected: (from: string, reason: string) =>
      instruments.reconnects.inc({ source: source(from), reason: reconnect(reason) }),
    requestFailed: (name: string, status: number | undefined) =>
      instruments.failedRequests.inc({ verb: verb(name), code: statusLabel(status) }),
    eventHandled: (seconds: number) => instruments.latency.observe(amount(seconds)),
    annotationRedriven: () => instruments.redriven.inc(),
    leaseChanged: (kind: string) => instruments.leases.inc({ kind: lease(kind) }),
  };
}

function statusLabel(status: number | undefined): string {
  if (status === undefined) return 'no-answer';
  if (STATUSES.has(status)) return `${status}`;
  return status >= 400 && status < 600 ? `${Math.floor(status / 100)}xx` : OTHER;
}

function storageEvents(instruments: EventInstruments) {
  const reason = word(12);
  return {
    storageSeen: ({ freeBytes, totalBytes }: { readonly freeBytes: number; readonly totalBytes: number }) => {
      instruments.free.set(freeBytes);
      instruments.total.set(totalBytes);
      instruments.checked.setToCurrentTime();
    },
    artifactsSeen: ({ count, bytes }: { readonly count: number; readonly bytes: number }) => {
      instruments.artifacts.set(count);
      instruments.artifactBytes.set(bytes);
    },
    artifactCollected: (why: string, bytes: number) => {
      const labels = { reason: reason(why) };
      instruments.deleted.inc(labels);
      instruments.deletedBytes.inc(labels, amount(bytes));
    },
    collectionFailed: () => instruments.failedDeletions.inc(),
  };
}

function apiEvents(instruments: EventInstruments) {
  const [method, capability, code] = [word(40), word(40), closedLabel(GRPC_CODES)];
  const reload = closedLabel(RELOADS);
  for (const result of RELOADS) instruments.reloads.inc({ result }, 0);
  return {
    capabilitiesSeen: (capabilities: readonly Capability[]) => {
      for (const { name, available } of capabilities)
        instruments.capability.set({ name: capability(name) }, available ? 1 : 0);
    },
    configReloaded: (result: ReloadResult) => instruments.reloads.inc({ result: reload(result) }),
    callEnded: (call: { readonly method: string; readonly code: string; readonly seconds: number }) => {
      instruments.calls.inc({ method: method(call.method), code: code(call.code) });
      instruments.callSeconds.observe({ method: method(call.method) }, amount(call.seconds));
    },
  };
}
