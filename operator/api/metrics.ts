import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import { newControlMetrics } from '../control/metrics.ts';
import { newDeletionMetrics } from '../deletion/metrics.ts';
import { newWebhookMetrics } from '../webhook/metrics.ts';

/** All metrics of the operator, each room's under its name, in one registry, and the usual ones of the process. */
export function newMetrics(version: string) {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  new Gauge({
    name: 'snapshot_operator_build_info',
    help: 'Always 1; the version of the operator.',
    ...{ labelNames: ['version'], registers: [registry] },
  }).set({ version }, 1);
  return {
    registry,
    control: newControlMetrics(registry),
    deletion: newDeletionMetrics(registry),
    webhook: newWebhookMetrics(registry),
  };
}

export type Metrics = ReturnType<typeof newMetrics>;
