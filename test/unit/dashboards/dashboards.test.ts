import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { newMetrics } from '../../../agent/api/metrics.ts';
import { ERRORS } from '../../../agent/errors.ts';
import { readsOf, type Selector } from './promql.ts';

/** Dashboard and alerts against the metrics that the agent has. */
const ROOT = resolve(import.meta.dirname, '../../..');
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');

interface Target {
  readonly expr: string;
  readonly legendFormat: string;
  readonly refId: string;
}

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly Target[];
  readonly datasource?: { readonly uid: string };
}

interface Variable {
  readonly name: string;
  readonly type: string;
  readonly definition?: string;
}

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: Readonly<Record<string, string>>;
}

const dashboard = JSON.parse(read('deploy/chart/files/dashboard.json')) as {
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly Variable[] };
};
const rules = (parse(read('deploy/chart/files/alerts.yaml')) as { groups: { rules: Rule[] }[] }).groups.flatMap(
  (group) => group.rules,
);
// biome-ignore lint/suspicious/noTemplateCurlyInString: Grafana puts the chosen data source there.
const DATASOURCE = '${datasource}';
const panels = dashboard.panels.filter(({ type }) => type !== 'row');
const queries = panels.flatMap(({ title, targets = [] }) => targets.map((target) => ({ title, ...target })));
const variableQueries = dashboard.templating.list.flatMap(({ definition }) => {
  const query = /^label_values\((.+), \w+\)$/.exec(definition ?? '')?.[1];
  return query === undefined ? [] : [query];
});
const expressions = [...queries.map(({ expr }) => expr), ...variableQueries, ...rules.map(({ expr }) => expr)];

/** What service discovery gives each target; `node` by the chart's PodMonitor. */
const TARGET_LABELS = ['job', 'instance', 'namespace', 'node', 'pod', 'container', 'endpoint'];
const { registry } = newMetrics({ version: '', criu: '', kernel: '', runtime: '' });

/** Labels of a series of the agent; undefined where there is no such series. */
function labelsOf(series: string): readonly string[] | undefined {
  if (series === 'up') return [];
  const own = (name: string) => registry.getSingleMetric(name) as { labelNames?: string[]; type?: string } | undefined;
  const exact = own(series);
  if (exact !== undefined) return exact.type === 'histogram' ? undefined : (exact.labelNames ?? []);
  const [, name = '', suffix] = /^(.+)_(bucket|sum|count)$/.exec(series) ?? [];
  const histogram = own(name);
  if (histogram?.type !== 'histogram') return undefined;
  return [...(histogram.labelNames ?? []), ...(suffix === 'bucket' ? ['le'] : [])];
}

/** The values that docs/metrics.md gives to a label of a metric; undefined where it gives none that are bounded. */
function valuesOf(metric: string, label: string): readonly string[] | undefined {
  const short = metric.replace(/^snapshot_agent_/, '');
  const rows = read('docs/metrics.md')
    .split('\n')
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .filter((cells) => cells[1] === `\`${label}\``);
  const fits = (of: string) =>
    of === 'all' || short.startsWith(of.replaceAll('`', '').replace(/^operations$/, 'operation'));
  const row = rows.find(([, , of = '']) => fits(of));
  if (label === 'code' && short.startsWith('operation')) return ['', ...Object.keys(ERRORS)];
  const named = [...(row?.[3] ?? '').matchAll(/`([^`]+)`/g)].map(([, value = '']) => value);
  return named.length > 0 ? named : undefined;
}

const known = (labels: readonly string[]) => new Set([...labels, ...TARGET_LABELS]);

describe.each(expressions)('%s', (expression) => {
  const { selectors, labels } = readsOf(expression);

  it('reads only series that the agent has, by labels that they have', () => {
    const wrong = selectors.flatMap(({ metric, matchers }) => {
      const has = labelsOf(metric);
      if (has === undefined) return [metric];
      return matchers.filter(({ label }) => !known(has).has(label)).map(({ label }) => `${metric}{${label}}`);
    });
    expect(wrong).toEqual([]);
    expect(selectors.length).toBeGreaterThan(0);
  });

  it('groups and joins by labels that they have', () => {
    const all = known(selectors.flatMap(({ metric }) => labelsOf(metric) ?? []));
    expect(labels.filter((label) => !all.has(label))).toEqual([]);
  });

  it('asks for values that there are', () => {
    expect(selectors.flatMap(strangeValues)).toEqual([]);
  });
});

function strangeValues({ metric, matchers }: Selector): string[] {
  const own = matchers.filter(({ label, value }) => !TARGET_LABELS.includes(label) && !value.includes('$'));
  return own.flatMap(({ label, operator, value }) => {
    const values = valuesOf(metric, label);
    if (values === undefined) return [`${metric}{${label}}: docs/metrics.md gives no values`];
    const asked = operator.endsWith('~') ? value.split('|') : [value];
    return asked.filter((one) => !values.includes(one)).map((one) => `${metric}{${label}="${one}"}`);
  });
}

describe('the dashboard', () => {
  it('has a data source, a node and a namespace to choose, and asks every query of what was chosen', () => {
    const names = dashboard.templating.list.map(({ name }) => name);
    expect(names).toEqual(['datasource', 'namespace', 'node', 'window']);
    for (const panel of panels) expect(panel.datasource?.uid).toBe(DATASOURCE);
    for (const { expr } of queries)
      for (const { metric, matchers } of readsOf(expr).selectors.filter((one) => one.metric.startsWith('snapshot_'))) {
        const chosen = matchers.filter(({ operator }) => operator === '=~').map(({ label, value }) => label + value);
        expect([metric, ...chosen]).toEqual(expect.arrayContaining(['namespace$namespace', 'node$node']));
      }
    for (const { expr } of queries)
      for (const [, name = ''] of expr.matchAll(/\$(\w+)/g)) expect([...names, '__range']).toContain(name);
  });

  it('names in its legends what is left of the labels', () => {
    for (const { expr, legendFormat } of queries) {
      const { selectors } = readsOf(expr);
      const has = known(selectors.flatMap(({ metric }) => labelsOf(metric) ?? []));
      for (const [, label = ''] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) expect(has).toContain(label);
    }
  });

  it('has panels that do not overlap, each with an id and a title of its own', () => {
    const all = dashboard.panels;
    expect(new Set(all.map(({ id }) => id)).size).toBe(all.length);
    expect(new Set(all.map(({ title }) => title)).size).toBe(all.length);
    const cells = all.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, index) => `${x + (index % w)},${y + Math.floor(index / w)}`),
    );
    expect(new Set(cells).size).toBe(cells.length);
    for (const { gridPos } of all) expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
  });

  it('shows every metric of the agent, or an alert looks at it', () => {
    const seen = new Set(expressions.flatMap((one) => readsOf(one).selectors.map(({ metric }) => metric)));
    const hidden = registry
      .getMetricsAsArray()
      .map(({ name }) => name)
      .filter((name) => name.startsWith('snapshot_agent_'))
      .filter((name) => !['', '_bucket', '_sum', '_count'].some((suffix) => seen.has(name + suffix)));
    // The bytes beside it say more.
    expect(hidden).toEqual(['snapshot_agent_restore_degraded_total']);
  });
});

describe('the alerts', () => {
  it.each(rules)('$alert says what happened, where, and what to read', ({ alert, expr, annotations, labels }) => {
    const { summary = '', description = '', runbook } = annotations;
    expect(summary).toMatch(/^[A-Z].+\.$/);
    expect(['warning', 'critical']).toContain(labels.severity);
    expect(runbook).toBe(`docs/alerts.md#${alert.toLowerCase()}`);
    const { selectors, labels: grouped } = readsOf(expr);
    const left = known([...grouped, ...selectors.flatMap(({ metric }) => labelsOf(metric) ?? [])]);
    const shown = [...description.matchAll(/\$labels\.(\w+)/g)].map(([, label = '']) => label);
    expect(shown.length).toBeGreaterThan(0);
    for (const label of shown) expect(left).toContain(label);
  });

  it('have a runbook each, and docs/alerts.md has no other', () => {
    const headings = [...read('docs/alerts.md').matchAll(/^### (.+)$/gm)].map(([, heading]) => heading);
    expect([...headings].sort()).toEqual(rules.map(({ alert }) => alert).sort());
  });
});
