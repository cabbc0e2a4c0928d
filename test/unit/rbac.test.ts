import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { NAMESPACE, only, render } from '../chart/render.ts';
import { grantsOf, readGpuRbac, readRbac } from '../fakes/kube-api/shipped-roles.ts';

const read = (path: string) => readFileSync(resolve(import.meta.dirname, '../..', path), 'utf8');
const everywhere = readRbac();
const inOne = readRbac('demo');
const gpu = readGpuRbac();

describe("the chart's rules", () => {
  it('allow the same, in all namespaces or in one', () => {
    expect(grantsOf(inOne.roles)).toEqual(grantsOf(everywhere.roles));
    expect(everywhere.roles.map(({ kind }) => kind)).toEqual(['ClusterRole']);
    expect(inOne.roles.map(({ kind, metadata }) => [kind, metadata?.namespace])).toEqual([['Role', 'demo']]);
  });

  it('allow for GPUs the same, in all namespaces or in one, where only what belongs to no namespace is allowed for all', () => {
    const restricted = readGpuRbac('demo').roles;
    expect(grantsOf(restricted)).toEqual(grantsOf(gpu.roles));
    const ofCluster = restricted.filter(({ kind }) => kind === 'ClusterRole');
    expect(grantsOf(ofCluster)).toEqual(['list resource.k8s.io/resourceslices']);
    expect(restricted.filter((role) => !ofCluster.includes(role)).map(({ metadata }) => metadata?.namespace)).toEqual([
      'demo',
    ]);
  });

  it('say what is needed for GPUs apart: nothing of it is in the others', () => {
    expect(grantsOf(gpu.roles).filter((grant) => grantsOf(everywhere.roles).includes(grant))).toEqual([]);
  });

  it('name every verb and every resource, and no name: nothing is allowed by the way', () => {
    const grants = [...grantsOf(everywhere.roles), ...grantsOf(gpu.roles)];
    expect(grants.filter((grant) => grant.includes('*'))).toEqual([]);
    expect(new Set(grants).size).toBe(grants.length);
  });

  it.each([
    ['all namespaces', everywhere, NAMESPACE],
    ['one namespace', inOne, 'demo'],
    ['GPUs', gpu, NAMESPACE],
    ['GPUs, in one namespace', readGpuRbac('demo'), 'demo'],
  ])('are bound to the service account that the agent runs as: %s', (_, { roles, bindings }, namespace) => {
    const { spec } = only(render({}, { namespace }), 'DaemonSet') as unknown as {
      spec: { template: { spec: { serviceAccountName: string } } };
    };
    expect(bindings.map(({ kind, roleRef }) => [kind, roleRef.kind, roleRef.name]).sort()).toEqual(
      roles.map(({ kind, metadata }) => [`${kind}Binding`, kind, metadata?.name]).sort(),
    );
    for (const { subjects } of bindings)
      expect(subjects).toEqual([{ kind: 'ServiceAccount', name: spec.template.spec.serviceAccountName, namespace }]);
  });

  it('are not there where somebody else makes them', () => {
    const kinds = render({ rbac: { create: false }, credentials: { enabled: false } }).map(({ kind }) => kind);
    expect(kinds.filter((kind) => /Role/.test(kind))).toEqual([]);
  });
});

describe('docs/kubernetes.md', () => {
  it.each([
    ['everywhere', 'verbs', everywhere],
    ['for GPUs', 'GPU verbs', gpu],
  ])('has a row for each rule %s, and no other', (_, heading, { roles }) => {
    const [, table = ''] = read('docs/kubernetes.md').split(`| API group | resource | ${heading} | for |\n`);
    const lines = table.split('\n\n')[0]?.split('\n') ?? [];
    const cells = lines
      .map((line) => /^\| `([a-z0-9.]*)` \| `([a-z]+)` \| ((?:`[a-z]+`(?:, )?)+) \|/.exec(line))
      .filter((match) => match !== null);
    const documented = cells.flatMap(([, group = '', resource = '', verbs = '']) =>
      [...verbs.matchAll(/`([a-z]+)`/g)].map(([, verb]) => `${verb} ${group === 'core' ? '' : group}/${resource}`),
    );
    expect(documented.sort()).toEqual(grantsOf(roles));
  });
});
