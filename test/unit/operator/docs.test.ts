import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { newMetrics } from '../../../operator/api/metrics.ts';
import { parseConfig } from '../../../operator/config.ts';
import { FINALIZER } from '../../../operator/deletion/policy.ts';
import { grantsOf, readOperatorRbac } from '../../fakes/kube-api/shipped-roles.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const page = read('docs/operator.md');
const quoted = (text: string) => [...text.matchAll(/`([^`]+)`/g)].map(([, found = '']) => found);
const section = (heading: string) => page.split(/^## /m).find((text) => text.startsWith(`${heading}\n`)) ?? '';
const rows = (text: string) =>
  text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim()));
const table = (text: string, head: string) => rows(text.slice(text.indexOf(head)).split('\n\n')[0] ?? '');
const sources = (room: string) =>
  readdirSync(join(ROOT, 'operator', room))
    .filter((name) => name.endsWith('.ts'))
    .map((name) => read(join('operator', room, name)))
    .join('\n');

function flat(value: unknown, path: readonly string[] = []): [string, unknown][] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return [[path.join('.'), value]];
  return Object.entries(value).flatMap(([key, below]) => flat(below, [...path, key]));
}

describe('docs/operator.md', () => {
  it('has a row for every key of the configuration, with its default, and no other', () => {
    const documented = table(section('Configuration'), '| key | default').map(([, key, value]) => [key, value]);
    const known = flat(parseConfig('')).map(([key, value]) => [`\`${key}\``, `\`${JSON.stringify(value)}\``]);
    expect(documented).toEqual(known);
  });

  it('has every metric with its type and labels, and no other', async () => {
    const { registry } = newMetrics('1');
    const metrics = (await registry.getMetricsAsJSON()).filter(({ name }) => name.startsWith('snapshot_operator_'));
    const known = metrics.map(({ name, type }) => {
      const { labelNames = [] } = registry.getSingleMetric(name) as { labelNames?: readonly string[] };
      return { name, type: `${type}`, labels: [...labelNames] };
    });
    const documented = rows(section('Metrics')).map(([, name = '', type = '', labels = '']) => ({
      ...{ name: name.replaceAll('`', ''), type, labels: quoted(labels) },
    }));
    expect(documented).toEqual(known);
  });

  it('has every Event that is written beside a DynamoCheckpoint', () => {
    const written = ['checkpoint', 'deletion', 'webhook'].flatMap((room) =>
      [...sources(room).matchAll(/recorder(?:\.|\?\.)(?:normal|warning)\(([^;]+)/g)].flatMap(([, call = '']) =>
        [...call.matchAll(/'([A-Z][A-Za-z]+)'/g)].map(([, reason]) => reason),
      ),
    );
    expect(written.length).toBeGreaterThan(3);
    const documented = table(section('Conditions, reasons, Events'), '| Event |').flatMap(([, reasons = '']) =>
      quoted(reasons),
    );
    expect([...new Set(written)].sort()).toEqual(documented.sort());
  });

  it('has every right that the chart gives in the namespaces that are worked in, and no other', () => {
    const { roles } = readOperatorRbac({ storage: { accessMode: 'podMount' } });
    const inNamespaces = roles.filter(({ metadata }) => !/-(own|webhook)$/.test(metadata?.name ?? ''));
    const documented = rows(section('Rights')).flatMap(([, group = '', resource = '', verbs = '']) =>
      quoted(verbs).map(
        (verb) => `${verb} ${group.replaceAll('`', '').replace('core', '')}/${resource.replaceAll('`', '')}`,
      ),
    );
    expect(documented.sort()).toEqual(grantsOf(inNamespaces));
  });

  it('names the finalizer', () => {
    expect(page).toContain(`\`${FINALIZER}\``);
  });
});
