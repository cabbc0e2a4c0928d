import { describe, expect, it } from 'vitest';
import { type ControlMetrics, newControlMetrics } from '../../../operator/control/metrics.ts';

type Told = readonly [tell: (metrics: ControlMetrics) => void, line: string];

describe('the metrics of the control loops', () => {
  it.each<Told>([
    [(it) => it.reconciled('c', 'done', 0.2), 'reconciles_total{controller="c",result="done"} 1'],
    [(it) => it.reconciled('c', 'failed', 0.2), 'reconcile_duration_seconds_bucket{le="0.5",controller="c"} 1'],
    [(it) => it.reconciled('c', 'done', -1), 'reconcile_duration_seconds_sum{controller="c"} 0'],
    [(it) => it.queued('c', 3), 'queue_depth{controller="c"} 3'],
    [(it) => it.watchLost('jobs', 'gone'), 'watch_lost_total{resource="jobs",reason="gone"} 1'],
    [(it) => it.statusWritten('jobs'), 'status_writes_total{resource="jobs"} 1'],
    [(it) => it.statusConflicted('jobs'), 'status_conflicts_total{resource="jobs"} 1'],
    [(it) => it.requestFailed('get', 503), 'api_failures_total{verb="get",status="503"} 1'],
    [(it) => it.requestFailed('get', undefined), 'api_failures_total{verb="get",status="none"} 1'],
    [(it) => it.leading(true), 'leader 1'],
    [() => undefined, 'leader 0'],
    [(it) => it.leaseChanged('lost'), 'lease_events_total{event="lost"} 1'],
    [(it) => it.eventLost('refused'), 'events_lost_total{reason="refused"} 1'],
  ])('%#: %s shows as %s', async (tell, line) => {
    const metrics = newControlMetrics();
    tell(metrics);
    expect((await metrics.registry.metrics()).split('\n')).toContain(`snapshot_operator_${line}`);
  });

  it('all begin with the name of the program, and have a word of help', async () => {
    const all = await newControlMetrics().registry.getMetricsAsJSON();
    expect(all.filter(({ name, help }) => !name.startsWith('snapshot_operator_') || help === '')).toEqual([]);
  });
});
