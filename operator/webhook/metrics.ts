import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { PassReason } from './admit.ts';

/** Every metric name of the webhook is in this file. */

/** Pods wait for the answer. */
const ADMISSION_SECONDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5];

/** `shaped`, why a pod was let through, or why the question could not be read. */
export type AdmissionResult = 'shaped' | PassReason | 'bad-request' | 'late' | 'busy';

/** What the webhook tells. None of these calls throws. */
export interface WebhookMetrics {
  admitted(result: AdmissionResult, seconds: number): void;
  /** Until when the certificate that is shown is good. */
  certificateServed(notAfterMs: number): void;
  /** The leader wrote: `issued`, `authority-added`, `authority-changed`, `trust-ended` or `bundle`. */
  certificateChanged(change: string): void;
  /** A look at the certificates failed: by the leader, or by a replica that serves. */
  certificateFailed(by: 'leader' | 'replica'): void;
}

/** The metrics, in the registry that is given or one of their own. */
export function newWebhookMetrics(registry = new Registry()): WebhookMetrics & { readonly registry: Registry } {
  const registers = [registry];
  const named = (name: string, help: string) => ({ name: `snapshot_operator_webhook_${name}`, help, registers });
  const admissions = new Counter({
    ...named('admissions_total', 'Pods that were asked about, by what became of them.'),
    labelNames: ['result'],
  });
  const seconds = new Histogram({
    ...named('admission_duration_seconds', 'Time from a question to its answer.'),
    buckets: ADMISSION_SECONDS,
  });
  const until = new Gauge(
    named('certificate_expiry_timestamp_seconds', 'When the certificate that is shown runs out; 0: there is none.'),
  );
  const changes = new Counter({
    ...named('certificate_changes_total', 'What the leader changed of the certificates.'),
    labelNames: ['change'],
  });
  const failures = new Counter({
    ...named('certificate_failures_total', 'Looks at the certificates that failed.'),
    labelNames: ['by'],
  });
  return {
    registry,
    admitted: (result, tookSeconds) => {
      admissions.inc({ result });
      seconds.observe(Math.max(0, tookSeconds));
    },
    certificateServed: (notAfterMs) => until.set(Math.round(notAfterMs / 1_000)),
    certificateChanged: (change) => changes.inc({ change }),
    certificateFailed: (by) => failures.inc({ by }),
  };
}
