import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { ERRORS, SnapshotError } from '../../../agent/errors.ts';
import type { OperationView } from '../../../agent/operations/operation.ts';
import type { DeletionReason } from '../../../agent/plan/retention.ts';
import { type Watched, watchedOperations } from './metrics-operations.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const page = readFileSync(join(ROOT, 'docs/metrics.md'), 'utf8');
const PREFIX = 'snapshot_agent_';
const GIB = 2 ** 30;

interface Described {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
}

const quoted = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map(([, text = '']) => text);
const rowsOf = (text: string) =>
  text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim()));
const documented: Described[] = rowsOf(page)
  .filter(([, name = '']) => name.startsWith(`\`${PREFIX}`))
  .map(([, name = '', type = '', labels = '']) => ({ name: name.replaceAll('`', ''), type, labels: quoted(labels) }));
const labelRows = rowsOf(page.split(/^## /m).find((text) => text.startsWith('Values of labels')) ?? '').map(
  ([, label = '', of = '', values = '']) => ({ label: label.replaceAll('`', ''), of, values }),
);

/** Names, types and labels as the registry has them. The library keeps label names in a field that it does not declare. */
async function registered(registry: Registry): Promise<Described[]> {
  const metrics = await registry.getMetricsAsJSON();
  return metrics
    .filter(({ name }) => name.startsWith(PREFIX))
    .map(({ name, type }) => {
      const { labelNames = [] } = registry.getSingleMetric(name) as { labelNames?: readonly string[] };
      return { name, type: `${type}`, labels: [...labelNames] };
    });
}

const byName = (metrics: readonly Described[]) => [...metrics].sort((a, b) => (a.name < b.name ? -1 : 1));

/** The values of a label in all samples of the metrics whose names begin like that. */
function valuesOf(samples: ReadonlyMap<string, number>, metric: string, label: string): string[] {
  const pattern = new RegExp(`^${metric}[a-z_]*\\{(?:.*,)?${label}="([^"]*)"`);
  return [...new Set([...samples.keys()].flatMap((name) => pattern.exec(name)?.[1] ?? []))].sort();
}

/** Everything that can happen, as far as the values of labels are closed. */
function driveAll({ metrics, open }: Watched): void {
  const { events, operations } = metrics;
  const failure = { code: 'ARTIFACT_UNSIGNED', message: '', advice: '', retryable: false } as const;
  const reasons = ['SIGNATURE_MISSING', 'KEY_UNKNOWN', 'SIGNATURE_WRONG'].map((code) => ({
    ...{ code, message: '', found: '', wanted: '', advice: '' },
  }));
  const { view } = open();
  const tell = (changes: Partial<OperationView>) =>
    operations.changed({ view: { ...view, ...changes }, ended: undefined });
  const parts = {
    criuBytes: GIB,
    bulkBytes: 1,
    zeroBytes: 1,
    rootfsBytes: 1,
    shmBytes: 1,
    deviceBytes: 1,
    pauseSeconds: 1,
  };
  metrics.readAtScrape({ certificateExpiriesMs: () => ({ server: 1, client_ca: 1 }) });
  tell({ state: 'succeeded', figures: parts });
  tell({ state: 'succeeded', adopted: true });
  tell({ state: 'failed' });
  tell({ state: 'refused', failure: { ...failure, reasons } });
  tell({ state: 'unknown', kind: 'restore', figures: { criuBytes: GIB, filledBytes: 1, unprefetchedBytes: 1 } });
  for (const result of ['applied', 'needs-restart', 'refused'] as const) events.configReloaded(result);
  for (const reason of ['ttl', 'count', 'bytes', 'watermark'] satisfies DeletionReason[])
    events.artifactCollected(reason, 1);
  for (const source of ['kubernetes', 'runtime'] as const) events.watchReconnected(source, 'closed');
  for (const verb of ['get', 'list', 'watch', 'create', 'update', 'patch', 'delete']) events.requestFailed(verb, 503);
  for (const status of [401, 403, 404, 409, 410, 422, 429, 400, undefined]) events.requestFailed('get', status);
}

describe('docs/metrics.md', () => {
  it('has every metric with its type and labels, and no other', async () => {
    const { metrics } = watchedOperations();
    expect(byName(documented)).toEqual(byName(await registered(metrics.registry)));
  });

  it('uses only names that are there, in rules and prose', async () => {
    const names = new Set((await registered(watchedOperations().metrics.registry)).map(({ name }) => name));
    const used = [...page.matchAll(/snapshot_agent_[a-z_]*[a-z]/g)].map(([name]) => name);
    const unknown = used.filter((name) => !names.has(name) && !names.has(name.replace(/_(bucket|sum|count)$/, '')));
    expect(unknown).toEqual([]);
  });

  const closed = labelRows.filter(({ values }) => /^`[^`]+`(, `[^`]+`)+$/.test(values));

  it('lists closed values of every label that has them', () => {
    expect(closed.map(({ label, of }) => `${label} of ${of.replaceAll('`', '')}`)).toEqual([
      'operation of all',
      'result of operations',
      'result of config_reloads',
      'code of kubernetes_request_failures',
      'reason of signature_refusals',
      'reason of restore_degraded',
      'reason of gc_deleted',
      'direction of bytes',
      'medium of bytes',
      'kind of image_bytes',
      'source of watch_reconnects',
      'verb of kubernetes_request_failures',
      'which of certificate_expiry_timestamp_seconds',
    ]);
  });

  it.each(closed)('says which values $label of $of has', async ({ label, of, values }) => {
    const watched = watchedOperations();
    driveAll(watched);
    const metric = { all: '', operations: 'operation' }[of] ?? quoted(of)[0] ?? '';
    expect(valuesOf(await watched.samples(), metric, label)).toEqual(quoted(values).sort());
  });

  it('has a row for every label', async () => {
    const labels = (await registered(watchedOperations().metrics.registry)).flatMap((metric) => metric.labels);
    const build = ['version', 'criu', 'kernel', 'runtime'];
    expect([...new Set(labelRows.map(({ label }) => label))].sort()).toEqual(
      [...new Set(labels)].filter((label) => !build.includes(label)).sort(),
    );
  });
});

it.each(Object.keys(ERRORS))('the error code %s is a value of the label code', async (code) => {
  const { open, samples } = watchedOperations();
  const failure = new SnapshotError(code as keyof typeof ERRORS, '');
  open().ended({ result: 'failed', failure, timings: [], figures: {} });
  expect(valuesOf(await samples(), 'operations_total', 'code')).toContain(code);
});
