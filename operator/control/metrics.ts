import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/*
 * Every metric name of the operator's control loops is in this file. Labels never name an object: their values are the operator's own words,
 * and few.
 */

/** From a look at the cache to some calls of the API server that has much to do. */
const RECONCILE_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60];

/** `done`: nothing is left to do. `again`: it comes back after a while. `conflict`: somebody else wrote first. */
type ReconcileResult = 'done' | 'again' | 'conflict' | 'failed';

/** What the control loops tell. None of these calls throws. */
export interface ControlMetrics {
  reconciled(controller: string, result: ReconcileResult, seconds: number): void;
  /** Keys that wait or are worked on. */
  queued(controller: string, depth: number): void;
  watchLost(resource: string, reason: string): void;
  statusWritten(resource: string): void;
  /** A status was refused because there was a newer version, and is made anew. */
  statusConflicted(resource: string): void;
  /** `status`: of the HTTP answer; undefined where none came. */
  requestFailed(verb: string, status: number | undefined): void;
  leading(isLeader: boolean): void;
  leaseChanged(kind: string): void;
  eventLost(reason: string): void;
}

/** The metrics, in the registry that is given or one of their own. */
export function newControlMetrics(registry = new Registry()): ControlMetrics & { readonly registry: Registry } {
  const registers = [registry];
  const counter = <L extends string>(name: string, help: string, labelNames: L[]) =>
    new Counter({ name: `snapshot_operator_${name}`, help, labelNames, registers });
  const gauge = <L extends string>(name: string, help: string, labelNames: L[] = []) =>
    new Gauge({ name: `snapshot_operator_${name}`, help, labelNames, registers });

  const results = counter('reconciles_total', 'Looks at an object, by how they ended.', ['controller', 'result']);
  const seconds = new Histogram({
    ...{ name: 'snapshot_operator_reconcile_duration_seconds', help: 'Time of one look at an object.' },
    ...{ labelNames: ['controller'], buckets: RECONCILE_SECONDS, registers },
  });
  const depth = gauge('queue_depth', 'Objects that wait to be looked at, or are.', ['controller']);
  const lost = counter('watch_lost_total', 'Watches that ended before their time.', ['resource', 'reason']);
  const written = counter('status_writes_total', 'Statuses that were written.', ['resource']);
  const conflicts = counter('status_conflicts_total', 'Statuses that somebody else wrote first.', ['resource']);
  const requests = counter('api_failures_total', 'Failed calls of the Kubernetes API.', ['verb', 'status']);
  const leader = gauge('leader', '1 while this process leads, else 0.');
  const leases = counter('lease_events_total', 'What became of the lease of the leader.', ['event']);
  const events = counter('events_lost_total', 'Events that could not be written.', ['reason']);
  leader.set(0);
  return {
    registry,
    reconciled: (controller, result, tookSeconds) => {
      results.inc({ controller, result });
      seconds.observe({ controller }, Math.max(0, tookSeconds));
    },
    queued: (controller, count) => depth.set({ controller }, count),
    watchLost: (resource, reason) => lost.inc({ resource, reason }),
    statusWritten: (resource) => written.inc({ resource }),
    statusConflicted: (resource) => conflicts.inc({ resource }),
    requestFailed: (verb, status) => requests.inc({ verb, status: status === undefined ? 'none' : String(status) }),
    leading: (isLeader) => leader.set(isLeader ? 1 : 0),
    leaseChanged: (event) => leases.inc({ event }),
    eventLost: (reason) => events.inc({ reason }),
  };
}
