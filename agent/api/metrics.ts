import { collectDefaultMetrics, Registry } from 'prom-client';
import type { OperationKind } from '../operations/operation.ts';
import type { CertificateExpiries } from './certificates.ts';
import { type EventMetrics, observeEvents } from './metrics-events.ts';
import { type MetricMaker, metricMaker } from './metrics-labels.ts';
import { type OperationMetrics, observeOperations } from './metrics-operations.ts';

/*
 * Every metric name of the agent is in this file; docs/metrics.md says what each means. Labels never name a pod, a namespace or an
 * artifact: their values are bounded.
 */

/** From a step that takes no time to a checkpoint that takes its ten minutes. */
const OPERATION_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600];
const PAUSE_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300];
const REACTION_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60];
const CALL_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120, 600];
const BYTES_PER_SECOND = [0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64].map((gigabytes) => gigabytes * 1e9);
/** 1 MiB to 1 TiB. */
const IMAGE_BYTES = Array.from({ length: 11 }, (_, index) => 2 ** (20 + 2 * index));

/** What does not change while the agent runs. */
export interface Build {
  readonly version: string;
  readonly criu: string;
  readonly kernel: string;
  readonly runtime: string;
}

/** What is read at each scrape. All of it is at hand: a scrape never waits for storage or the network. */
export interface ScrapeSources {
  /** How long a single step may take, as the configuration says now. */
  readonly stepDeadlineSeconds?: (kind: OperationKind) => number;
  readonly quarantinedTargets?: () => number;
  /** Undefined before the first contact. */
  readonly watchContactAgeSeconds?: () => number | undefined;
  readonly watchedPods?: () => number;
  readonly isReady?: () => boolean;
  /** Not given where there is no TCP. */
  readonly certificateExpiriesMs?: () => CertificateExpiries;
  readonly areCertificatesStale?: () => boolean;
  readonly areRecordKeysStale?: () => boolean;
}

export interface Metrics {
  readonly registry: Registry;
  readonly operations: OperationMetrics;
  readonly events: EventMetrics;
  /** Adds sources: rooms that start later give theirs later, and until then the metric has no value. */
  readAtScrape(sources: ScrapeSources): void;
}

/** All metrics of one agent, in a registry of their own, and the usual ones of the process. `now` gives milliseconds. */
export function newMetrics(build: Build, now: () => number = Date.now): Metrics {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const make = metricMaker(registry);
  let sources: ScrapeSources = {};
  const operations = observeOperations(operationInstruments(make), now);
  const events = observeEvents({ ...clusterInstruments(make), ...storageInstruments(make), ...apiInstruments(make) });
  polledInstruments(make, () => sources, operations);
  credentialInstruments(make, () => sources);
  make
    .gauge('snapshot_agent_build_info', 'Always 1; versions of the agent, CRIU, kernel and runtime.', [
      'version',
      'criu',
      'kernel',
      'runtime',
    ])
    .set({ ...build }, 1);
  return {
    registry,
    operations,
    events,
    readAtScrape: (more) => {
      sources = { ...sources, ...more };
    },
  };
}

export type OperationInstruments = ReturnType<typeof operationInstruments>;
export type EventInstruments = ReturnType<typeof clusterInstruments> &
  ReturnType<typeof storageInstruments> &
  ReturnType<typeof apiInstruments>;

function operationInstruments({ counter, histogram }: MetricMaker) {
  return {
    ended: counter('snapshot_agent_operations_total', 'Operations that ended.', ['operation', 'result', 'code']),
    duration: histogram(
      'snapshot_agent_operation_duration_seconds',
      'Duration of an operation, from its first step to its end.',
      OPERATION_SECONDS,
      ['operation', 'result'],
    ),
    step: histogram(
      'snapshot_agent_step_duration_seconds',
      'Duration of a step of an operation; with the step unaccounted they sum to the operation.',
      OPERATION_SECONDS,
      ['operation', 'step'],
    ),
    pause: histogram('snapshot_agent_pause_seconds', 'How long a checkpoint held its source.', PAUSE_SECONDS),
    bytes: counter('snapshot_agent_bytes_total', 'Bytes of memory moved.', ['direction', 'medium']),
    throughput: histogram(
      'snapshot_agent_throughput_bytes_per_second',
      'Rate of a step that moves memory.',
      BYTES_PER_SECOND,
      ['step'],
    ),
    image: histogram('snapshot_agent_image_bytes', 'Size of the parts of a checkpoint.', IMAGE_BYTES, ['kind']),
    queueWait: histogram('snapshot_agent_queue_wait_seconds', 'Time in the queue.', REACTION_SECONDS),
    refusals: counter('snapshot_agent_refusals_total', 'Operations refused, once for each reason.', ['reason']),
    signatures: counter('snapshot_agent_signature_refusals_total', 'Artifacts refused for their signature.', [
      'reason',
    ]),
    unknown: counter('snapshot_agent_outcome_unknown_total', 'Restores whose outcome nobody can tell.'),
    degraded: counter('snapshot_agent_restore_degraded_total', 'Restores that took a slow path.', ['reason']),
    degradedBytes: counter('snapshot_agent_restore_degraded_bytes_total', 'Bytes that took a slow path.', ['reason']),
  };
}

function clusterInstruments({ counter, gauge, histogram }: MetricMaker) {
  return {
    reconnects: counter('snapshot_agent_watch_reconnects_total', 'Times the watch began again.', ['source', 'reason']),
    failedRequests: counter('snapshot_agent_kubernetes_request_failures_total', 'Kubernetes API calls that failed.', [
      'verb',
      'code',
    ]),
    latency: histogram(
      'snapshot_agent_event_latency_seconds',
      'From an event on the watch to the first step of the operation.',
      REACTION_SECONDS,
    ),
    redriven: counter('snapshot_agent_annotations_redriven_total', 'Annotations written again from a record.'),
    leases: counter('snapshot_agent_lease_events_total', 'What became of leases of checkpoint Jobs.', ['kind']),
    capability: gauge('snapshot_agent_capability', '1 where the node has the capability, else 0.', ['name']),
    reloads: counter('snapshot_agent_config_reloads_total', 'Changes of the configuration file.', ['result']),
  };
}

function storageInstruments({ counter, gauge }: MetricMaker) {
  return {
    free: gauge('snapshot_agent_storage_free_bytes', 'Free space of the volume.'),
    total: gauge('snapshot_agent_storage_total_bytes', 'Size of the volume.'),
    checked: gauge('snapshot_agent_storage_checked_timestamp_seconds', 'When the volume was last looked at.'),
    artifacts: gauge('snapshot_agent_artifacts', 'Artifacts on the volume.'),
    artifactBytes: gauge('snapshot_agent_artifact_bytes', 'Bytes of the artifacts on the volume.'),
    deleted: counter('snapshot_agent_gc_deleted_total', 'Artifacts deleted by retention.', ['reason']),
    deletedBytes: counter('snapshot_agent_gc_deleted_bytes_total', 'Bytes deleted by retention.', ['reason']),
    failedDeletions: counter('snapshot_agent_gc_failures_total', 'Artifacts that retention failed to delete.'),
  };
}

function apiInstruments({ counter, histogram }: MetricMaker) {
  return {
    calls: counter('snapshot_agent_grpc_calls_total', 'gRPC calls that ended.', ['method', 'code']),
    callSeconds: histogram('snapshot_agent_grpc_call_duration_seconds', 'Duration of a gRPC call.', CALL_SECONDS, [
      'method',
    ]),
  };
}

function polledInstruments({ polled }: MetricMaker, sources: () => ScrapeSources, operations: OperationMetrics): void {
  const single = (value: number | undefined) => (value === undefined ? undefined : [{ labels: {}, value }]);
  const byKind = (count: (kind: OperationKind) => number) =>
    (['checkpoint', 'restore'] as const).map((operation) => ({ labels: { operation }, value: count(operation) }));

  polled('snapshot_agent_operations_in_flight', 'Operations that run.', ['operation'], () =>
    byKind((kind) => operations.count(kind, 'running')),
  );
  polled('snapshot_agent_operations_waiting', 'Operations that it is too early for.', ['operation'], () =>
    byKind((kind) => operations.count(kind, 'waiting')),
  );
  polled('snapshot_agent_queue_depth', 'Operations that wait for a free place.', [], () =>
    single(operations.count('checkpoint', 'queued') + operations.count('restore', 'queued')),
  );
  polled('snapshot_agent_stuck_operations', 'Operations whose step is past its deadline.', ['operation'], () => {
    const { stepDeadlineSeconds } = sources();
    return stepDeadlineSeconds && byKind((kind) => operations.countStuck(kind, stepDeadlineSeconds(kind)));
  });
  polled('snapshot_agent_quarantined_targets', 'Containers with a process that does not die.', [], () =>
    single(sources().quarantinedTargets?.()),
  );
  polled('snapshot_agent_watch_contact_age_seconds', 'Time since the watch last heard anything.', [], () =>
    single(sources().watchContactAgeSeconds?.()),
  );
  polled('snapshot_agent_watched_pods', 'Pods of this node that are watched.', [], () =>
    single(sources().watchedPods?.()),
  );
  polled('snapshot_agent_ready', '1 while the agent can do its work, else 0.', [], () => {
    const isReady = sources().isReady?.();
    return single(isReady === undefined ? undefined : Number(isReady));
  });
}

function credentialInstruments({ polled }: MetricMaker, sources: () => ScrapeSources): void {
  const stale = (read: (() => boolean) | undefined) => read && [{ labels: {}, value: Number(read()) }];
  polled(
    'snapshot_agent_certificate_expiry_timestamp_seconds',
    'When what gRPC over TCP uses runs out.',
    ['which'],
    () => {
      const expiries = sources().certificateExpiriesMs?.();
      const value = (which: 'server' | 'client_ca', ms: number) => ({ labels: { which }, value: ms / 1000 });
      return expiries && [value('server', expiries.server), value('client_ca', expiries.client_ca)];
    },
  );
  polled('snapshot_agent_certificates_stale', '1 while changed certificate files cannot be used, else 0.', [], () =>
    stale(sources().areCertificatesStale),
  );
  polled('snapshot_agent_record_keys_stale', '1 while changed key files cannot be used, else 0.', [], () =>
    stale(sources().areRecordKeysStale),
  );
}
