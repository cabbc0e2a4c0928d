import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { chartFiles } from '../../deploy/chart-values/schema.ts';
import { CHART, helm, NAMESPACE, only, render } from './render.ts';

const read = (path: string) => readFileSync(resolve(CHART, path), 'utf8');

it.each(Object.entries(chartFiles()))('%s is what `make chart-schema` makes', (path, content) => {
  expect(read(path)).toBe(content);
});

describe('README.md', () => {
  interface Schema {
    readonly properties?: Readonly<Record<string, Schema>>;
  }

  /** Every value with its default, as paths. What may hold any key is one value, and so is the configuration. */
  function leaves(value: unknown, schema: Schema | undefined, path: readonly string[] = []): [string, unknown][] {
    const isSection = typeof value === 'object' && value !== null && schema?.properties !== undefined;
    if (!isSection || Object.keys(value).length === 0 || path[0] === 'config') return [[path.join('.'), value]];
    return Object.entries(value).flatMap(([key, below]) => leaves(below, schema.properties?.[key], [...path, key]));
  }

  const values = leaves(parse(read('values.yaml')), JSON.parse(read('values.schema.json')) as Schema);
  const [, table = ''] = read('README.md').split('| key | default | meaning |\n');
  const rows = (table.split('\n\n')[0] ?? '')
    .split('\n')
    .map((line) => /^\| `([A-Za-z0-9.]+)` \| (.*?) \| (.+) \|$/.exec(line))
    .filter((match) => match !== null);

  it('has a row for every value, in the order of values.yaml, and no other', () => {
    expect(rows.map(([, key]) => key)).toEqual(values.map(([key]) => key));
  });

  it.each(values.filter(([key]) => key !== 'config'))('says of %s that its default is %j', (key, value) => {
    const row = rows.find(([, name]) => name === key);
    expect(row?.[2]).toBe(`\`${JSON.stringify(value)}\``);
  });

  it('names the only images that there are', () => {
    const images = [...JSON.stringify(render({ operator: { enabled: true } })).matchAll(/"image":"([^"]+)"/g)].map(
      ([, image]) => image,
    );
    const { version } = parse(read('Chart.yaml')) as { version: string };
    expect([...new Set(images)].sort()).toEqual([`snapshot-agent:${version}`, `snapshot-operator:${version}`]);
  });
});

describe('what helm prints after an install', () => {
  /** The same as after an install: helm renders notes only where it pretends to install. */
  const notes = (...set: string[]) =>
    helm(
      'install',
      'snapshot',
      CHART,
      '-n',
      NAMESPACE,
      '--dry-run=client',
      ...set.flatMap((one) => ['--set', one]),
    ).split('NOTES:')[1] ?? '';

  it('names the objects that there are', () => {
    const text = notes();
    expect(text).toContain(`daemonset/${only(render(), 'DaemonSet').metadata.name}`);
    expect(text).toContain('with nvidia.com/gpu.present=true');
    expect(text).toContain('claim snapshot-pvc');
    expect(text).toContain('Secret snapshot-record-key: keep a copy');
  });

  it('says what is left to be done', () => {
    const text = notes('credentials.enabled=false', 'api.tcp.enabled=true', 'storage.accessMode=podMount');
    expect(text).toContain('when you have made the Secret snapshot-record-key, and snapshot-agent-tls.');
    expect(text).toContain('volumes that the pods themselves mount at /checkpoints');
  });
});
